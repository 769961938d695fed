"""Sum up the time of a profile by package."""

from collections import Counter
from cProfile import Profile
from pathlib import Path
from pstats import Stats
from typing import Any

WAITING = ("~", 0, "<method 'read' of '_ssl._SSLSocket' objects>")


def shares(profiler: Profile) -> dict[str, float]:
    """Return the time by package; built-in functions count for their callers."""
    spent: Counter[str] = Counter()
    stats: Any = Stats(profiler)
    for where, (_, _, own, _, callers) in stats.stats.items():
        if where == WAITING:
            continue
        if where[0] == "~":
            for caller, (_, _, share, _) in callers.items():
                spent["TLS" if "_ssl" in where[2] else package(caller[0])] += share
        else:
            spent[package(where[0])] += own
    return {name: time / sum(spent.values()) for name, time in spent.most_common()}


def package(file: str) -> str:
    """Return the package of a file."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if "mailer" in parts:
        return "mailer." + parts[parts.index("mailer") + 1].removesuffix(".py")
    return "Python's own library"

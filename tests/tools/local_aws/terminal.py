"""Print for people: no escape codes where nobody looks at a terminal, or where NO_COLOR says so (no-color.org)."""

import os
import sys

from rich.console import Console


def console() -> Console:
    """Make the console of a command."""
    is_plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    return Console(highlight=False, force_terminal=False if is_plain else None)

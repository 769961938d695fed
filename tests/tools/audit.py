"""Check the shipped packages for known vulnerabilities: exit with 1 if there are any, 2 if a package could not be checked, else 0.

python tests/tools/audit.py [--tolerate-unchecked]    with it, unchecked packages are only reported: the service may be out of reach
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "src/requirements.txt"
AUDIT = [
    str(Path(sys.executable).with_name("pip-audit")),
    *("--requirement", str(REQUIREMENTS), "--require-hashes", "--disable-pip"),
    *("--format", "json", "--progress-spinner", "off", "--timeout", "15"),
]
MOST = 300.0  # seconds that the whole audit may take
SOUND, VULNERABLE, UNCHECKED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of the audit."""

    flaws: Sequence[str]
    """One line for each known vulnerability."""
    checked: Collection[str]
    unchecked: Collection[str]

    @property
    def exit_code(self) -> int:
        """A vulnerability takes precedence over unchecked packages."""
        return VULNERABLE if self.flaws else UNCHECKED if self.unchecked else SOUND

    @property
    def summary(self) -> str:
        """One line, distinct for each kind of result."""
        found = f"{len(self.flaws)} known vulnerabilities in the {len(self.checked)} packages that were checked"
        if not self.unchecked:
            return f"audit: {found}"
        if not self.checked:
            return f"audit: NOT CHECKED: the advisory service was not reached, or knows none of the {len(self.unchecked)} packages"
        return f"audit: NOT CHECKED: {', '.join(sorted(self.unchecked))}; {found}"


def pinned(requirements: str) -> set[str]:
    """Return the names of the packages that a requirements file pins."""
    return {_normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", requirements, re.MULTILINE)}


def judge(answer: str, names: Collection[str]) -> Audit:
    """Read pip-audit's JSON; a package is checked only if the advisory service returned a result for it."""
    packages = {_normal(package["name"]): package for package in _packages(answer)}
    checked = {name for name in names if isinstance(packages.get(name, {}).get("vulns"), list)}
    flaws = [_line(packages[name], flaw) for name in sorted(checked) for flaw in packages[name]["vulns"]]
    return Audit(flaws, checked, set(names) - checked)


def _packages(answer: str) -> list[dict[str, Any]]:
    try:
        packages: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):  # it prints no JSON if it was interrupted
        return []
    return packages


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _line(package: dict[str, Any], flaw: dict[str, Any]) -> str:
    return f"{package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version yet'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerate-unchecked", action="store_true")
    given = parser.parse_args(arguments)
    try:
        answer = subprocess.run(AUDIT, capture_output=True, text=True, check=False, timeout=MOST).stdout
    except subprocess.TimeoutExpired:
        answer = ""
    audit = judge(answer, pinned(REQUIREMENTS.read_text()))
    print(*audit.flaws, audit.summary, sep="\n")
    return SOUND if given.tolerate_unchecked and audit.exit_code == UNCHECKED else audit.exit_code


if __name__ == "__main__":
    sys.exit(main())

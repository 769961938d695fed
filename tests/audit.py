"""Ask for known vulnerabilities of what ships; fail on each one, and only say so where the advisory service is out of reach."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

AUDIT = [
    str(Path(sys.executable).with_name("pip-audit")),
    *("--requirement", "src/requirements.txt", "--require-hashes", "--disable-pip"),
    *("--format", "json", "--progress-spinner", "off", "--timeout", "15"),
]


def main() -> int:
    """Print what was found; answer the exit code."""
    done = subprocess.run(AUDIT, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print("pip-audit: the advisory service is out of reach; nothing was audited")
        return 0
    found = [(package, flaw) for package in packages for flaw in package.get("vulns", [])]
    skipped = sum("skip_reason" in package for package in packages)
    for package, flaw in found:
        print(f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version yet'}")
    print(f"pip-audit: {len(packages) - skipped} packages audited, {skipped} unknown to the advisory service, {len(found)} vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

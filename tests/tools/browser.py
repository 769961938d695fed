"""Find a Chromium for the console's tests, and install their npm packages.

    python -m tools.browser [--require]   print the Chromium that is used; with --require, fail if there is none

A Chromium of the system is preferred; without one, and with Node, an npm package provides it. Nothing else is downloaded.
"""

import argparse
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[1] / "requirements/browser"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
MAC = (
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
)
ARGUMENTS = (
    "--no-sandbox",  # it opens only our own pages, and containers do not allow a sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

MISSING = "!!! NO CHROMIUM: the browser tests of the console are skipped. Install one (apt-get install chromium), or Node with npm."

REQUIRED = "TENANTMAIL_BROWSER_REQUIRED"
"""Set by .ci/run: the tests then fail without a browser instead of being skipped."""


@cache
def chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    return next((str(path) for path in MAC if path.exists()), None) or _from_npm()


def _from_npm() -> str | None:
    if not (shutil.which("node") and sys.platform == "linux"):
        return None
    if not ((PACKAGES / "node_modules/@sparticuz/chromium").exists() or npm_ci("--include=optional")):
        return None
    unpack = "import('@sparticuz/chromium').then(m => m.default.executablePath()).then(path => console.log(path))"
    answer = subprocess.run(["node", "--input-type=module", "-e", unpack], cwd=PACKAGES, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


@cache
def axe() -> str | None:
    """Return the source of axe-core, which checks pages for accessibility; None if npm cannot install it."""
    source = PACKAGES / "node_modules/axe-core/axe.min.js"
    if not source.exists():
        npm_ci("--omit=optional")
    return source.read_text(encoding="utf-8") if source.exists() else None


def npm_ci(option: str) -> bool:
    """Install the pinned packages; return whether that succeeded."""
    npm = shutil.which("npm")
    command = [npm or "npm", "ci", option, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return bool(npm) and subprocess.run(command, cwd=PACKAGES, stdout=sys.stderr, check=False).returncode == 0


def is_required() -> bool:
    """Return whether the tests fail without a browser."""
    return bool(os.environ.get(REQUIRED))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--require", action="store_true", help="fail without one, or without axe-core")
    required = parser.parse_args(arguments).require or is_required()
    found = chromium()
    sys.stderr.write(f"browser tests: {found}\n" if found else f"{MISSING}\n")
    return 1 if required and not (found and axe()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

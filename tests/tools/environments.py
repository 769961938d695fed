"""Create the virtual environments from the pinned requirements, and update the pins.

    python3 tests/tools/environments.py setup [NAME…]   install what has changed since the last run
    python3 tests/tools/environments.py lock [--upgrade]  resolve pyproject.toml into the requirement files

Runs on any Python from 3.9 with nothing installed: it finds Python 3.13, or downloads it with uv, and bootstraps a pinned uv.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = Path("tests/requirements")
PYTHON = "3.13"
GROUPS = ("tests", "sam", "ministack", "checkov", "runtime", "uv")
# Requirement files of each environment; the app's pins come first, so that the tests run on exactly what ships.
ENVIRONMENTS = {
    ".venv": (Path("src/requirements.txt"), PINS / "tests.txt"),
    ".venv-sam": (PINS / "sam.txt",),
    ".venv-ministack": (PINS / "ministack.txt",),
    ".venv-checkov": (PINS / "checkov.txt",),
    ".venv-runtime": (PINS / "runtime.txt",),
}


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    os.chdir(ROOT)
    command, *names = arguments or ["setup"]
    if command == "setup":
        for name in names or ENVIRONMENTS:
            setup(name)
    elif command == "lock":
        lock(upgrade="--upgrade" in names)
    else:
        print(__doc__)
        return 2
    return 0


def setup(name: str) -> None:
    """Install the pins of one environment; a no-op if its stamp matches them."""
    pins = ENVIRONMENTS[name]
    stamp = Path(name, "requirements.sha256")
    wanted = digest(pins)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"installing {name} …", flush=True)
    uv = bootstrapped_uv()
    if not Path(name, "bin/python").exists():
        run(uv, "venv", "--quiet", "--python", python() or PYTHON, name, advice="" if python() else NO_PYTHON)
    options = ["--quiet", "--exact", "--require-hashes", "--compile-bytecode", "--python", f"{name}/bin/python"]
    run(uv, "pip", "install", *options, *(argument for file in pins for argument in ("-r", str(file))), advice=NO_INDEX)
    stamp.write_text(wanted)


def lock(*, upgrade: bool) -> None:
    """Pin the app, then each group of tools; those of the tests are constrained by the app's pins."""
    uv = bootstrapped_uv()
    common = ["pip", "compile", "--quiet", "--universal", "--python-version", PYTHON, "--generate-hashes", "--no-annotate"]
    common += ["--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock", *(["--upgrade"] if upgrade else [])]
    run(uv, *common, "pyproject.toml", "-o", "src/requirements.txt")
    for group in GROUPS:
        agree = ["-c", "src/requirements.txt"] if group == "tests" else []
        run(uv, *common, "--group", f"pyproject.toml:{group}", *agree, "-o", str(PINS / f"{group}.txt"))


def bootstrapped_uv() -> str:
    """Return the path of our pinned uv, installed with the pip of the available Python."""
    uv, stamp, pins = Path(".venv-uv/bin/uv"), Path(".venv-uv/requirements.sha256"), PINS / "uv.txt"
    if not (uv.exists() and stamp.is_file() and stamp.read_text() == digest([pins])):
        run(python() or sys.executable, "-m", "venv", "--clear", ".venv-uv")
        pinned = ["--require-hashes", "-r", str(pins)] if pins.exists() else ["uv"]
        run(".venv-uv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pinned, advice=NO_INDEX)
        stamp.write_text(digest([pins]) if pins.exists() else "")
    return str(uv)


def python() -> str | None:
    """Return an interpreter of the required version; None if uv must download one."""
    for candidate in candidates():
        version = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            answer = subprocess.run([candidate, "-c", version], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if answer.stdout.strip() == PYTHON:  # a pyenv shim exists for versions that are not selected, and fails
            return candidate
    return None


def candidates() -> Iterator[str]:
    """Yield where a Python of the required version may be: this one, PATH, pyenv's versions."""
    yield sys.executable
    if found := shutil.which(f"python{PYTHON}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{PYTHON}*/bin/python{PYTHON}"), reverse=True))


def digest(files: list[Path] | tuple[Path, ...]) -> str:
    """Hash the contents of the requirement files."""
    return hashlib.sha256(b"\0".join(Path(file).read_bytes() for file in files)).hexdigest()


def run(*command: str, advice: str = "") -> None:
    """Run a program; if it fails, print the advice and exit with its code."""
    code = subprocess.run(command, check=False).returncode
    if code:
        if advice:
            print(advice, file=sys.stderr)
        sys.exit(code)


NO_PYTHON = f"""
There is no Python {PYTHON} here, and uv could not download one. Install Python
{PYTHON} (pyenv, your package manager), or give this machine access to the network,
and run the same command again."""

NO_INDEX = """
The pinned packages could not be installed. Give this machine access to PyPI, or
to a mirror of it (PIP_INDEX_URL and UV_INDEX_URL name one), and run the same
command again."""


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

"""Run the console of a local AWS, as long as that runs."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tools.local_aws.processes import Process
from tools.local_aws.server import NO_OWN_SETUP, ROOT, is_taken

PORT = 4567
WAIT = 20.0  # seconds
POLL = 0.05  # seconds; the console writes its address to its log


_started: dict[Path, subprocess.Popen[bytes]] = {}
"""Consoles that this process has started and must reap."""


class NoConsoleError(Exception):
    """The console did not start; the text is its output."""


def start(directory: Path, exports: Mapping[str, str]) -> str:
    """Start the console with the current code, replacing a running one; return its address."""
    stop(directory)
    log = directory / "console.log"
    port = 0 if is_taken(PORT) else PORT
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailer_ops.operate", "console", "--no-browser", "--port", str(port)],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), **NO_OWN_SETUP, **exports},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    address = _address(log, process)
    _started[directory] = process
    (directory / "console.json").write_text(json.dumps(asdict(Process.of(process.pid))))
    return address


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + WAIT
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text()):
            return found[0]
        time.sleep(POLL)
    process.kill()
    process.wait()
    raise NoConsoleError(log.read_text().strip())


def pid(directory: Path) -> int:
    """Return the id of the console's process."""
    return int(json.loads((directory / "console.json").read_text())["pid"])


def stop(directory: Path) -> None:
    """Stop the console if it runs."""
    noted = directory / "console.json"
    if noted.exists():
        Process(**json.loads(noted.read_text())).stop()
        noted.unlink()
    if process := _started.pop(directory, None):
        process.wait()

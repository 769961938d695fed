"""Stop processes by pid and start time: a pid alone may have been reused."""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass

POLL = 0.02  # seconds; there is no portable way to wait for a process that is not a child


@dataclass(frozen=True, slots=True)
class Process:
    """A process, identified when it was recorded."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process":
        return cls(pid, _started(pid))

    def runs(self) -> bool:
        return bool(self.started) and _started(self.pid) == self.started

    def stop(self, *, group: bool = False, seconds: float = 10.0) -> None:
        """Terminate it, then kill it; with `group`, also the process group that it leads."""
        if not self.runs():
            return
        kill = os.killpg if group else os.kill
        with contextlib.suppress(ProcessLookupError):
            kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while self.runs():
                if time.monotonic() > deadline:
                    kill(self.pid, signal.SIGKILL)
                time.sleep(POLL)
            if group:
                kill(self.pid, signal.SIGKILL)


def _started(pid: int) -> str:
    """Return when a process started; empty for none and for a zombie."""
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()

"""Time the batches of a contender in its own process, and write the figures to a file.

    python -m tools.bench.send.ours batch RESULT '{"count": 5}'

writes the figures to the file RESULT as JSON; the logs of the measured code go to standard output, as in Lambda.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tools.bench.send.workload import BATCH, EVERYONE, Requests, event

Handle = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds that one call took."""

    wall: float
    cpu: float


def measured(work: Callable[[], object]) -> Figures:
    """Run it and return its times."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Figures(time.perf_counter() - wall, time.process_time() - cpu)


def batches(handle: Handle, count: int, *, size: int = BATCH, warm_up: int = BATCH) -> dict[str, float]:
    """Measure `count` batches after one to warm up; return the wall time per batch and the CPU per message, in seconds."""
    requests = Requests(f"{os.getpid()}")
    handle(event(requests.take(EVERYONE, warm_up)))
    events = [event(requests.take(EVERYONE, size)) for _ in range(count)]
    figures = [measured(partial(handle, batch)) for batch in events]
    return {"wall": statistics.median(f.wall for f in figures), "cpu": statistics.median(f.cpu for f in figures) / size}


def repeated(send: Callable[[], object], count: int) -> dict[str, float]:
    """Measure one message `count` times after one to warm up; return its wall time and its CPU, in seconds."""
    send()
    figures = [measured(send) for _ in range(count)]
    return {"wall": statistics.median(f.wall for f in figures), "cpu": statistics.median(f.cpu for f in figures)}


def run_named(*contenders: Callable[..., dict[str, float]]) -> None:
    """Run the contender named on the command line."""
    name, result, options = sys.argv[1:]
    measure = {contender.__name__: contender for contender in contenders}[name]
    Path(result).write_text(json.dumps(measure(**json.loads(options))), encoding="utf-8")

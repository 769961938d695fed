"""What every contender's process does: batches, clocked, and the figures in a file.

    python -m tools.bench.send.ours batch RESULT '{"count": 5}'

writes its figures to the file RESULT as JSON; what the code under measure logs goes to standard output, as in Lambda.
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
    """Seconds that one batch took."""

    wall: float
    cpu: float


def clocked(work: Callable[[], object]) -> Figures:
    """Run and measure."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Figures(time.perf_counter() - wall, time.process_time() - cpu)


def batches(handle: Handle, count: int, *, size: int = BATCH, warm_up: int = BATCH) -> dict[str, float]:
    """Measure so many batches after one that opens what must be opened; give a batch's wall and a message's CPU, in seconds."""
    requests = Requests(f"{os.getpid()}")
    handle(event(requests.take(EVERYONE, warm_up)))
    events = [event(requests.take(EVERYONE, size)) for _ in range(count)]
    figures = [clocked(partial(handle, batch)) for batch in events]
    return {"wall": statistics.median(f.wall for f in figures), "cpu": statistics.median(f.cpu for f in figures) / size}


def repeated(send: Callable[[], object], count: int) -> dict[str, float]:
    """Measure one message so many times, once it is warm; give its wall and its CPU in seconds."""
    send()
    figures = [clocked(send) for _ in range(count)]
    return {"wall": statistics.median(f.wall for f in figures), "cpu": statistics.median(f.cpu for f in figures)}


def answer(*contenders: Callable[..., dict[str, float]]) -> None:
    """Run the one of them that the command line names."""
    name, result, options = sys.argv[1:]
    measure = {contender.__name__: contender for contender in contenders}[name]
    Path(result).write_text(json.dumps(measure(**json.loads(options))), encoding="utf-8")

"""Model checking with larger bounds than in `make test`."""

import os
from concurrent.futures import ProcessPoolExecutor

from tools.model.__main__ import timed
from tools.model.setups import THOROUGH


def test_no_larger_model_violates_an_invariant() -> None:
    """Three workers, more messages, more resends; the shortest path to a violation is printed."""
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        walks = dict(zip(THOROUGH, processes.map(timed, THOROUGH), strict=True))
    for name, (found, seconds) in walks.items():
        print(f"{name}: {found.states:,} states, {found.moves:,} moves, {seconds:.0f} s")
    assert {name: (found.violation, found.path) for name, (found, _) in walks.items() if found.violation} == {}

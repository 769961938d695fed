"""The delivery machine, walked through wider worlds than `make test` has time for."""

import os
from concurrent.futures import ProcessPoolExecutor

from tools.model.__main__ import timed
from tools.model.setups import THOROUGH


def test_no_wider_world_breaks_a_promise() -> None:
    """Three workers, more messages, more resends: the shortest way to a broken promise is printed."""
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        walks = dict(zip(THOROUGH, processes.map(timed, THOROUGH), strict=True))
    for name, (found, seconds) in walks.items():
        print(f"{name}: {found.worlds:,} states, {found.moves:,} moves, {seconds:.0f} s")
    assert {name: (found.broken, found.way) for name, (found, _) in walks.items() if found.broken} == {}

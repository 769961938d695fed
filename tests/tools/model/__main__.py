"""Explore every model on all CPUs, and print its number of states and the time."""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tools.model.explore import Walk, walk
from tools.model.setups import QUICK, THOROUGH

SETUPS = {**QUICK, **THOROUGH}


def timed(name: str) -> tuple[Walk, float]:
    """Explore one model; return the result and the seconds."""
    began = time.perf_counter()
    return walk(SETUPS[name]), time.perf_counter() - began


def main() -> int:
    """Explore the named models, or all; return 1 if an invariant is violated."""
    names = sys.argv[1:] or list(SETUPS)
    bad = 0
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for name, (found, seconds) in zip(names, processes.map(timed, names), strict=True):
            print(f"{name}: {found.states:,} states, {found.moves:,} moves, {seconds:.0f} s", flush=True)
            if found.violation:
                bad += 1
                print("\n".join([f"    {found.violation}:", *(f"        {step}" for step in found.path)]))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

"""Walk every world, on all processors, and print how many states each has and how long it took."""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tools.model.explore import Walk, walk
from tools.model.setups import QUICK, THOROUGH

SETUPS = {**QUICK, **THOROUGH}


def timed(name: str) -> tuple[Walk, float]:
    """Walk one world; return what was found, and the seconds it took."""
    began = time.perf_counter()
    return walk(SETUPS[name]), time.perf_counter() - began


def main() -> int:
    """Walk those that are named, or all; the exit code says whether every promise holds."""
    names = sys.argv[1:] or list(SETUPS)
    bad = 0
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for name, (found, seconds) in zip(names, processes.map(timed, names), strict=True):
            print(f"{name}: {found.worlds:,} states, {found.moves:,} moves, {seconds:.0f} s", flush=True)
            if found.broken:
                bad += 1
                print("\n".join([f"    {found.broken}:", *(f"        {step}" for step in found.way)]))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

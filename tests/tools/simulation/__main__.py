"""Replay one story with its trace, or play many, on all processors, and tell what came of them."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import batched

from tools.simulation.check import figures, wrongs
from tools.simulation.story import Story

CHUNK = 250
"""Stories that a process plays before it reports."""


def main() -> int:
    """Read the arguments and play; the exit code says whether all went well."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="replay this one")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stories", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed)
    began = time.perf_counter()
    total, bad = play_all(range(arguments.first, arguments.first + arguments.stories))
    print("\n".join(bad))
    print(f"{arguments.stories} stories, {len(bad)} went wrong, {time.perf_counter() - began:.0f} s")
    print("\n".join(f"{count:>10} {what}" for what, count in total.items()))
    return bool(bad)


def play_all(seeds: range) -> tuple[Counter[str], list[str]]:
    """Play many stories side by side; return the sum of their figures and what went wrong."""
    total: Counter[str] = Counter()
    bad: list[str] = []
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for counted, found in processes.map(play_some, batched(seeds, CHUNK, strict=False)):
            total += counted
            bad += found
    return total, bad


def play_some(seeds: tuple[int, ...]) -> tuple[Counter[str], list[str]]:
    """Play some stories one after another."""
    total: Counter[str] = Counter()
    bad: list[str] = []
    for seed in seeds:
        story = Story(seed).play()
        total += figures(story)
        if found := wrongs(story):
            bad.append(f"{seed}: {'; '.join(found)}")
    return total, bad


def replay(seed: int) -> int:
    """Print everything that happens in one story."""
    story = Story(seed, traced=True).play()
    found = wrongs(story)
    print("\n".join([*(story.world.trace or []), *(found or ["nothing went wrong"])]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

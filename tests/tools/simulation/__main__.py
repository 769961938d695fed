"""Replay one story with its trace, or play many, on all processors, and tell what came of them."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
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
    parser.add_argument("--feedback", action="store_true", help="let SES's events come back; of many stories also tell what comes without")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed, has_feedback=arguments.feedback)
    began = time.perf_counter()
    seeds = range(arguments.first, arguments.first + arguments.stories)
    without, bad = play_all(seeds)
    with_feedback, worse = play_all(seeds, has_feedback=True) if arguments.feedback else (Counter[str](), [])
    bad += [f"{wrong} (--feedback)" for wrong in worse]
    print("\n".join(bad))
    print(f"{arguments.stories} stories, {len(bad)} went wrong, {time.perf_counter() - began:.0f} s")
    print(compared(without, with_feedback) if arguments.feedback else "\n".join(f"{count:>10} {what}" for what, count in without.items()))
    return bool(bad)


def compared(without: Mapping[str, int], with_feedback: Mapping[str, int]) -> str:
    """Write the figures of the same stories side by side."""
    names = dict.fromkeys([*without, *with_feedback])
    lines = [f"{without.get(what, 0):>10} {with_feedback.get(what, 0):>10} {what}" for what in names]
    return "\n".join([f"{'without':>10} {'with':>10} feedback", *lines])


def play_all(seeds: range, *, has_feedback: bool = False) -> tuple[Counter[str], list[str]]:
    """Play many stories side by side; return the sum of their figures and what went wrong."""
    total: Counter[str] = Counter()
    bad: list[str] = []
    play = partial(play_some, has_feedback=has_feedback)
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for counted, found in processes.map(play, batched(seeds, CHUNK, strict=False)):
            total += counted
            bad += found
    return total, bad


def play_some(seeds: Iterable[int], *, has_feedback: bool = False) -> tuple[Counter[str], list[str]]:
    """Play some stories one after another."""
    total: Counter[str] = Counter()
    bad: list[str] = []
    for seed in seeds:
        story = Story(seed, has_feedback=has_feedback).play()
        total += figures(story)
        if found := wrongs(story):
            bad.append(f"{seed}: {'; '.join(found)}")
    return total, bad


def replay(seed: int, *, has_feedback: bool = False) -> int:
    """Print everything that happens in one story."""
    story = Story(seed, traced=True, has_feedback=has_feedback).play()
    found = wrongs(story)
    print("\n".join([*(story.world.trace or []), *(found or ["nothing went wrong"])]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

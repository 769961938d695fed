"""Replay one scenario with its trace, or run many on all CPUs and print their figures."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import batched

from tools.simulation.check import figures, violations
from tools.simulation.scenario import Scenario

CHUNK = 250
"""Scenarios per task of a process."""


def main() -> int:
    """Parse the arguments and run; return 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="replay this one")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--scenarios", type=int, default=1000)
    parser.add_argument("--feedback", action="store_true", help="with SES events; of many scenarios also print the figures without")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed, has_feedback=arguments.feedback)
    began = time.perf_counter()
    seeds = range(arguments.first, arguments.first + arguments.scenarios)
    without, bad = run_all(seeds)
    with_feedback, worse = run_all(seeds, has_feedback=True) if arguments.feedback else (Counter[str](), [])
    bad += [f"{wrong} (--feedback)" for wrong in worse]
    print("\n".join(bad))
    print(f"{arguments.scenarios} scenarios, {len(bad)} with violations, {time.perf_counter() - began:.0f} s")
    print(compared(without, with_feedback) if arguments.feedback else "\n".join(f"{count:>10} {what}" for what, count in without.items()))
    return bool(bad)


def compared(without: Mapping[str, int], with_feedback: Mapping[str, int]) -> str:
    """Return the figures of the same scenarios, without and with feedback."""
    names = dict.fromkeys([*without, *with_feedback])
    lines = [f"{without.get(what, 0):>10} {with_feedback.get(what, 0):>10} {what}" for what in names]
    return "\n".join([f"{'without':>10} {'with':>10} feedback", *lines])


def run_all(seeds: range, *, has_feedback: bool = False) -> tuple[Counter[str], list[str]]:
    """Run many scenarios in parallel; return the sum of their figures and the violations."""
    total: Counter[str] = Counter()
    bad: list[str] = []
    run = partial(run_some, has_feedback=has_feedback)
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for counted, found in processes.map(run, batched(seeds, CHUNK, strict=False)):
            total += counted
            bad += found
    return total, bad


def run_some(seeds: Iterable[int], *, has_feedback: bool = False) -> tuple[Counter[str], list[str]]:
    """Run some scenarios sequentially."""
    total: Counter[str] = Counter()
    bad: list[str] = []
    for seed in seeds:
        scenario = Scenario(seed, has_feedback=has_feedback).run()
        total += figures(scenario)
        if found := violations(scenario):
            bad.append(f"{seed}: {'; '.join(found)}")
    return total, bad


def replay(seed: int, *, has_feedback: bool = False) -> int:
    """Print the trace of one scenario."""
    scenario = Scenario(seed, traced=True, has_feedback=has_feedback).run()
    found = violations(scenario)
    print("\n".join([*(scenario.world.trace or []), *(found or ["no violations"])]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

"""Every condition is tested: without it a test fails."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.mutants import judge, mutants

EQUIVALENT: Mapping[str, str] = {
    "give_up: without MAYBE_SENT": "same: only asked for where `refuse` was refused for that very reason, which never passes",
    "resend: without SAME_ATTEMPT": "same: the caller chose it for every attempt, and each one's own deadline is asked",
    "resend: without WORKER_DEAD": "same: only asked for once it is so, and an attempt's deadline never changes",
}
"""Equivalent mutants, and why they are equivalent."""


def test_every_removed_condition_fails_a_test(tmp_path: Path) -> None:
    """A surviving mutant is a gap in the tests, or is listed above as equivalent; the table of failing tests is printed."""
    folders = {mutant: tmp_path / str(number) for number, mutant in enumerate(mutants())}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        verdicts = list(threads.map(judge, folders, folders.values()))
    for verdict in verdicts:
        print(f"| {verdict.mutant.name} | {verdict.caught_by or EQUIVALENT.get(verdict.mutant.name)} |")
    assert {verdict.mutant.name for verdict in verdicts if verdict.caught_by is None} == EQUIVALENT.keys()

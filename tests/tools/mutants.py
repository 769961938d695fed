"""Mutation testing of conditions: remove one at a time from a copy of the source, and run the tests that must fail."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mailer.domain.delivery import RULES, Status

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
"""Longer than a run in which no test fails."""

DELIVERY = "src/mailer/domain/delivery.py"
MESSAGES = "src/mailer/adapters/dynamodb/messages_table.py"
PROVIDERS = "src/mailer/adapters/dynamodb/providers_table.py"
PACING = "src/mailer/adapters/dynamodb/pacing_table.py"
FEEDBACK = "src/mailer/adapters/dynamodb/feedback_table.py"
MARKS = "src/mailer/adapters/dynamodb/provider_feedback.py"

TESTS = {
    DELIVERY: (
        *(
            f"tests/unit/test_{name}.py"
            for name in ("delivery", "reconcile", "send", "sweep", "dead_letters", "intake", "outcomes", "feedback")
        ),
        *(f"tests/unit/test_messages_{name}.py" for name in ("accept", "records", "resolve")),
        "tests/unit/test_model.py",
    ),
    MESSAGES: ("tests/functional/test_messages_table.py",),
    PROVIDERS: ("tests/functional/test_provider_table.py", "tests/functional/test_provider_effect.py"),
    PACING: ("tests/functional/test_pacing_table.py",),
    FEEDBACK: ("tests/functional/test_feedback_table.py",),
    MARKS: ("tests/functional/test_provider_feedback.py",),
}
"""Tests of each file's mutants, the fastest first; a run stops at the first failure."""

CLAUSES = {
    MESSAGES: (
        "contentHash = :hash",
        "NOT begins_with(contentHash, :scheme)",
        "#generation <= :generation",
        "#status <> :deferred",
        "attribute_not_exists(dueAt)",
        "dueAt <= :now",
        "attempt = :attempt",
        "#owner = :owner",
        "deadline < :now",
        "attribute_not_exists(deadline)",
        "deadline < :deadBefore",
        "attribute_not_exists(maybeSent)",
        "attribute_exists(maybeSent)",
        "onUnknown = :resend",
        "attempt >= :attempt",
        "attribute_not_exists(feedback)",
        "feedback.#rank < :rank",
        "feedback.lastAt < :lastAt",
        "feedback.firstAt > :firstAt",
        "contentHash <> :erased",
        "attribute_not_exists(tenantShard)",
        "#status IN ({', '.join(names)})",
    ),
    PROVIDERS: (
        "attribute_not_exists(tenantId)",
        "revision = :read",
        "attribute_not_exists(faultyRequests)",
        "size(faultyRequests) < :enough",
        "size(faultyRequests) >= :enough",
        "attribute_exists(faultyRequests)",
        "sandbox <> :yes",
        "#status = :active",
        "active.version = :version",
        "releaseAt <= :before",
    ),
    PACING: (
        "attribute_not_exists(account)",
        "#revision = :revision | AND #end <= :start",
        "#revision = :revision | AND #end > :start",
        "#end <= :start",
        "#end > :start",
        "#end <= :latest",
        "#revision = :before",
    ),
    FEEDBACK: ("attribute_not_exists(pk)", "digest = :read"),
    MARKS: (
        "#config.feedbackAt <= :before",
        "attribute_exists(#config.unheardSince)",
        "#config.simulation.startedAt = :simulation",
        "attribute_exists(#config.configurationSet)",
        "#config.feedbackAt < :recently",
        "#config.unheardSince <= :before",
        "attribute_not_exists(#config.silentSince)",
        "#config.version = :version",
    ),
}
"""Each clause of each condition expression; the text after a `|` only identifies one of two occurrences."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One disabled condition."""

    name: str
    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result for a mutant; `caught_by` is the first test that failed, None if all passed."""

    mutant: Mutant
    caught_by: str | None


def mutants() -> Iterator[Mutant]:
    """Yield every mutant: rules without a guard, rules from any status, and expressions without a clause."""
    for rule in RULES.values():
        for guard in sorted(rule.guards):
            change = f'object.__setattr__(RULES["{rule.name}"], "guards", RULES["{rule.name}"].guards - {{Guard.{guard.name}}})'
            yield Mutant(f"{rule.name}: without {guard.name}", DELIVERY, "", change)
        for status in sorted(set(Status) - rule.sources):
            change = f'object.__setattr__(RULES["{rule.name}"], "sources", RULES["{rule.name}"].sources | {{Status.{status.name}}})'
            yield Mutant(f"{rule.name}: also from {status}", DELIVERY, "", change)
    for path, clauses in CLAUSES.items():
        for clause in clauses:
            yield from _without(path, clause)


def _without(path: str, clause: str) -> Iterator[Mutant]:
    """Make a clause always true, and always false if it is combined with another by OR."""
    clause, _, rest = clause.partition(" |")
    key = {PACING: "account", FEEDBACK: "pk"}.get(path, "tenantId")
    name = f"{Path(path).stem}: {clause}{rest and f' …{rest}'}"
    always = f"(attribute_exists({key}) OR attribute_not_exists({key}) OR {clause})"
    yield Mutant(f"{name}: always true", path, clause + rest, always + rest)
    if re.search(rf"OR {re.escape(clause)}|{re.escape(clause)} OR", (ROOT / path).read_text()):
        never = f"(attribute_exists({key}) AND attribute_not_exists({key}) AND {clause})"
        yield Mutant(f"{name}: never true", path, clause + rest, never + rest)


def judge(mutant: Mutant, folder: Path) -> Verdict:
    """Run the tests on a copy of the source that has the mutation."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / mutant.path
    text = file.read_text()
    assert not mutant.old or mutant.old in text, f"{mutant.path} has no {mutant.old}"
    file.write_text(text.replace(mutant.old, mutant.new) if mutant.old else f"{text}\n{mutant.new}\n")
    pytest = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={folder / 'src'} tests")
    run = subprocess.run(
        [*pytest, *TESTS[mutant.path]],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    found = re.search(r"^FAILED tests/(.+?)(?: - |$)", run.stdout, re.MULTILINE)
    assert run.returncode == (1 if found else 0), f"{mutant.name}: the tests did not run\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
    return Verdict(mutant, found[1] if found else None)

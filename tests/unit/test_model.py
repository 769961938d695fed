"""Model checking of the delivery state machine, and of machines that are known to be wrong."""

import pytest

from mailer.domain.delivery import RULES
from tools.model.explore import walk
from tools.model.records import CHANGES, Write
from tools.model.setups import BROKEN, MISREADING, QUICK
from tools.model.state import Setup


@pytest.mark.parametrize("name", QUICK)
def test_no_order_of_steps_violates_an_invariant(name: str) -> None:
    """At most one acceptance, no wrong end, a path to an end from every state; the shortest path to a violation is printed."""
    found = walk(QUICK[name])
    print(f"{name}: {found.states:,} states, {found.moves:,} moves")
    assert (found.violation, found.path) == (None, ())
    assert found.states > 5_000


@pytest.mark.parametrize("name", BROKEN)
def test_designs_of_other_systems_send_twice(name: str) -> None:
    """The model checker finds both, with short paths."""
    found = walk(Setup(queue_messages=2, machine=BROKEN[name]))
    print(f"{name}: {' → '.join(found.path)}")
    assert found.violation == "accepted twice"
    assert len(found.path) <= 4


@pytest.mark.parametrize("name", MISREADING)
def test_a_machine_that_misinterprets_events_is_detected(name: str) -> None:
    """An event must end a request, and only an event of a real attempt may."""
    machine, invariant = MISREADING[name]
    found = walk(Setup(on_unknown="resend", machine=machine))
    print(f"{name}: {' → '.join(found.path)}")
    assert found.violation == invariant


def test_every_rule_of_the_machine_is_in_the_model() -> None:
    """A new rule must be added to the model."""
    assert {make(Write(operation, "v1:a", "hold")).rule.name for operation, make in CHANGES.items()} == RULES.keys()

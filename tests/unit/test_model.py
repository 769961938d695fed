"""The delivery machine, walked through every order of steps, crashes and lost replies; and machines that are known to be wrong."""

import pytest

from mailer.domain.delivery import RULES
from tools.model.explore import walk
from tools.model.records import CHANGES, Write
from tools.model.setups import BROKEN, DEAF, QUICK
from tools.model.world import Setup


@pytest.mark.parametrize("name", QUICK)
def test_no_order_of_steps_breaks_a_promise(name: str) -> None:
    """At most one acceptance, no false end, a way to an end from everywhere; the shortest way to a broken promise is printed."""
    found = walk(QUICK[name])
    print(f"{name}: {found.worlds:,} states, {found.moves:,} moves")
    assert (found.broken, found.way) == (None, ())
    assert found.worlds > 5_000


@pytest.mark.parametrize("name", BROKEN)
def test_what_other_systems_do_sends_twice(name: str) -> None:
    """The guard of the guard: both are found, by ways short enough to happen in any week."""
    found = walk(Setup(queue_messages=2, machine=BROKEN[name]))
    print(f"{name}: {' → '.join(found.way)}")
    assert found.broken == "accepted twice"
    assert len(found.way) <= 4


@pytest.mark.parametrize("name", DEAF)
def test_what_ses_tells_is_taken_for_what_it_is(name: str) -> None:
    """The guard of the guard: evidence ends a request, and only an attempt that was made has evidence."""
    machine, promise = DEAF[name]
    found = walk(Setup(on_unknown="resend", machine=machine))
    print(f"{name}: {' → '.join(found.way)}")
    assert found.broken == promise


def test_every_rule_of_the_machine_is_in_the_model() -> None:
    """A new rule enters the walk."""
    assert {make(Write(deed, "v1:a", "hold")).rule.name for deed, make in CHANGES.items()} == RULES.keys()

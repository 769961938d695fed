"""Which producers may ask for which tenants: how the rules are written, kept and renewed."""

import re
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from mailer.adapters.producer_rules import ASK_AGAIN_AFTER, FRESH_FOR, SsmProducerRules
from mailer.domain.errors import DependencyError
from mailer.domain.producers import Producers
from support.aws import tables
from support.fakes.ports import FakeClock

MOMENT = timedelta(milliseconds=1)
GOOD = ["", "AROAEXAMPLE12:acme", "AIDAEXAMPLE12:acme|globex-1,111122223333:*", "AROAEXAMPLE12:a_B-9|a", "AROAEXAMPLE12:a,AROAEXAMPLE12:b"]
ID = "AROAEXAMPLE12"
BAD = [",", ID, f"{ID}:", f"{ID}:a|", f"{ID}:a,", f"{ID}:a|*", ":a", f"{ID}:a,,{ID}:b", "arn:aws:iam::111122223333:role/mailer:a"]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_template_takes_can_be_read(text: str) -> None:
    """A parameter that the stack takes and the function cannot read would stop every producer."""
    assert re.fullmatch(tables.template()["Parameters"]["ProducerTenants"]["AllowedPattern"], text)
    assert bool(Producers.parse(text).tenants) == bool(text)


@pytest.mark.parametrize("text", BAD)
def test_what_the_template_refuses(text: str) -> None:
    """A slip is found before it counts."""
    assert not re.fullmatch(tables.template()["Parameters"]["ProducerTenants"]["AllowedPattern"], text)


@pytest.mark.parametrize("text", [",", f"{ID}:a,", f",{ID}:a", f"{ID}:a,,{ID}:b", ID, f"{ID}:", ":a", f"{ID}:a|", "a="])
def test_an_entry_that_names_nobody_is_an_error(text: str) -> None:
    """Taken for no rule, a comma that was left over would let each producer ask for every tenant."""
    with pytest.raises(ValueError, match="ProducerTenants must be"):
        Producers.parse(text)


def test_an_id_that_is_named_twice_gets_both() -> None:
    """One line a tenant is as good as one a producer."""
    rules = Producers.parse("A:acme,A:globex,B:*")
    assert [rules.may_ask("A:session", tenant) for tenant in ("acme", "globex", "initech")] == [True, True, False]
    assert (rules.may_ask("B", "initech"), rules.may_ask("C", "acme"), rules.may_ask(None, "initech")) == (True, False, True)


class Ssm:
    """A client that answers one value, or fails as told."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.failing = False
        self.asked = 0

    def get_parameter(self, *, Name: str) -> Any:  # noqa: N803 - boto3's name
        assert Name == "rules"
        self.asked += 1
        if self.failing:
            raise ReadTimeoutError(endpoint_url="https://ssm")
        return {"Parameter": {"Value": self.value}}


def test_the_rules_are_read_once_a_minute() -> None:
    """An update of the stack counts by then."""
    ssm, clock = Ssm("A:acme"), FakeClock()
    rules = SsmProducerRules(lambda: ssm, "rules", clock.now)
    assert [rules.current().may_ask("A", "acme") for _ in range(3)] == [True] * 3
    ssm.value = "A:globex"
    clock.advance(FRESH_FOR + MOMENT)
    assert (rules.current().may_ask("A", "acme"), ssm.asked) == (False, 2)


def test_rules_that_are_known_outlive_an_outage() -> None:
    """And a value that nobody can read; both are told."""
    ssm, clock, told = Ssm("A:acme"), FakeClock(), []
    rules = SsmProducerRules(lambda: ssm, "rules", clock.now, lambda *what: told.append(what[0]))
    rules.current()
    clock.advance(FRESH_FOR + MOMENT)
    ssm.failing = True
    assert rules.current().may_ask("A", "acme")
    clock.advance(ASK_AGAIN_AFTER + MOMENT)
    ssm.failing, ssm.value = False, "nonsense"
    assert rules.current().may_ask("A", "acme")
    assert told == ["read producer rules"] * 2


def test_rules_that_were_never_read_let_nobody_pass() -> None:
    """Systems Manager is not asked again for each message."""
    ssm, clock = Ssm("A:acme"), FakeClock()
    ssm.failing = True
    rules = SsmProducerRules(lambda: ssm, "rules", clock.now)
    raised = []
    for _ in range(3):
        with pytest.raises(DependencyError, match="SSM did not complete GetParameter") as caught:
            rules.current()
        raised.append(caught.value)
    assert ssm.asked == 1
    assert len({id(told) for told in raised}) == 3  # one that is raised again has a longer traceback each time
    ssm.failing = False
    clock.advance(ASK_AGAIN_AFTER + MOMENT)
    assert rules.current().may_ask("A", "acme")


def test_without_a_parameter_nobody_is_asked() -> None:
    """Each producer may ask for every tenant."""
    ssm = Ssm("A:acme")
    assert SsmProducerRules(lambda: ssm, "", FakeClock().now).current().may_ask("B", "globex")
    assert ssm.asked == 0

"""The rules of which producers may send for which tenants: parsing, caching and renewal."""

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
def test_values_that_the_template_accepts_can_be_parsed(text: str) -> None:
    """A parameter that the stack accepts and the function cannot parse would stop every producer."""
    assert re.fullmatch(tables.template()["Parameters"]["ProducerTenants"]["AllowedPattern"], text)
    assert bool(Producers.parse(text).tenants) == bool(text)


@pytest.mark.parametrize("text", BAD)
def test_invalid_values_are_refused_by_the_template(text: str) -> None:
    """A typing error is found before the deployment."""
    assert not re.fullmatch(tables.template()["Parameters"]["ProducerTenants"]["AllowedPattern"], text)


@pytest.mark.parametrize("text", [",", f"{ID}:a,", f",{ID}:a", f"{ID}:a,,{ID}:b", ID, f"{ID}:", ":a", f"{ID}:a|", "a="])
def test_an_incomplete_entry_is_an_error(text: str) -> None:
    """If it counted as no rule, a superfluous comma would let each producer send for every tenant."""
    with pytest.raises(ValueError, match="ProducerTenants must be"):
        Producers.parse(text)


def test_a_repeated_id_gets_all_its_tenants() -> None:
    """Rules may be listed by tenant or by producer."""
    rules = Producers.parse("A:acme,A:globex,B:*")
    assert [rules.may_request("A:session", tenant) for tenant in ("acme", "globex", "initech")] == [True, True, False]
    assert (rules.may_request("B", "initech"), rules.may_request("C", "acme"), rules.may_request(None, "initech")) == (True, False, True)


class Ssm:
    """A client that returns one value, or fails."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.failing = False
        self.calls = 0

    def get_parameter(self, *, Name: str) -> Any:  # noqa: N803 - boto3's name
        assert Name == "rules"
        self.calls += 1
        if self.failing:
            raise ReadTimeoutError(endpoint_url="https://ssm")
        return {"Parameter": {"Value": self.value}}


def test_the_rules_are_read_once_a_minute() -> None:
    """An update of the stack takes effect after that."""
    ssm, clock = Ssm("A:acme"), FakeClock()
    rules = SsmProducerRules(lambda: ssm, "rules", clock.now)
    assert [rules.current().may_request("A", "acme") for _ in range(3)] == [True] * 3
    ssm.value = "A:globex"
    clock.advance(FRESH_FOR + MOMENT)
    assert (rules.current().may_request("A", "acme"), ssm.calls) == (False, 2)


def test_known_rules_stay_in_effect_during_an_outage() -> None:
    """They also stay if the new value is invalid; both failures are reported."""
    ssm, clock, reported = Ssm("A:acme"), FakeClock(), []
    rules = SsmProducerRules(lambda: ssm, "rules", clock.now, lambda *failure: reported.append(failure[0]))
    rules.current()
    clock.advance(FRESH_FOR + MOMENT)
    ssm.failing = True
    assert rules.current().may_request("A", "acme")
    clock.advance(ASK_AGAIN_AFTER + MOMENT)
    ssm.failing, ssm.value = False, "nonsense"
    assert rules.current().may_request("A", "acme")
    assert reported == ["read producer rules"] * 2


def test_without_rules_no_producer_is_allowed() -> None:
    """Systems Manager is not called again for each message."""
    ssm, clock = Ssm("A:acme"), FakeClock()
    ssm.failing = True
    rules = SsmProducerRules(lambda: ssm, "rules", clock.now)
    raised = []
    for _ in range(3):
        with pytest.raises(DependencyError, match="SSM did not complete GetParameter") as caught:
            rules.current()
        raised.append(caught.value)
    assert ssm.calls == 1
    assert len({id(error) for error in raised}) == 3  # an exception that is raised again gets a longer traceback
    ssm.failing = False
    clock.advance(ASK_AGAIN_AFTER + MOMENT)
    assert rules.current().may_request("A", "acme")


def test_without_a_parameter_systems_manager_is_not_called() -> None:
    """Each producer may send for every tenant."""
    ssm = Ssm("A:acme")
    assert SsmProducerRules(lambda: ssm, "", FakeClock().now).current().may_request("B", "globex")
    assert ssm.calls == 0

"""The facts of SES's events by recipient: equal for any order and any number of copies."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.domain.facts import MAX_RECIPIENTS, NO_FACTS, Fact, Facts, FeedbackCounts, RecipientStatus, counts_of, merged, recipients_of
from support.fakes.ports import NOON

MINUTE = timedelta(minutes=1)

times = st.integers(0, 3).map(lambda minutes: NOON + minutes * MINUTE)
one_fact = st.builds(Fact, times, st.sampled_from(["", "4.2.2", "5.1.1"]), st.sampled_from(["", "no", "full"]))
facts_of_one = st.dictionaries(st.sampled_from(list(RecipientStatus)), one_fact, min_size=1, max_size=3)
some_facts = st.dictionaries(st.sampled_from(["a@example.com", "b@example.com", "c@example.com"]), facts_of_one, max_size=3)


@given(one=some_facts, other=some_facts, third=some_facts)
def test_merging_is_commutative_associative_and_idempotent(one: Facts, other: Facts, third: Facts) -> None:
    """Events may be merged in any order, any number of times, in any groups."""
    assert merged(one, one) == one == merged(one, NO_FACTS)
    assert merged(one, other) == merged(other, one)
    assert merged(merged(one, other), third) == merged(one, merged(other, third))


@given(one=some_facts, other=some_facts)
def test_counts_of_more_facts_replace_counts_of_fewer(one: Facts, other: Facts) -> None:
    """A late write never replaces newer counts."""
    before, after = counts_of(one), counts_of(merged(one, other))
    if after is None or before is None:
        assert before is None
        return
    assert after == before or after.replaces(before)
    assert not before.replaces(after)


@given(facts=some_facts)
def test_each_recipient_is_counted_once(facts: Facts) -> None:
    """Its most significant status counts."""
    counts = counts_of(facts)
    columns = [getattr(counts, status.value) for status in RecipientStatus] if counts else []
    assert sum(columns) == len(facts) == len(recipients_of(facts))


def a_fact(minutes: int = 0, diagnostic: str = "") -> Fact:
    return Fact(NOON + minutes * MINUTE, "", diagnostic)


def test_a_recipient_has_its_most_significant_status() -> None:
    """A complaint is the most significant; an out-of-office reply, which is a soft bounce, does not replace the delivery."""
    order = ["delayed", "soft_bounced", "delivered", "rejected", "bounced", "complained"]
    statuses = [RecipientStatus(name) for name in order]
    for count in range(1, len(statuses) + 1):
        facts = {"jo@example.com": {status: a_fact(-rank) for rank, status in enumerate(statuses[:count])}}
        [shown] = recipients_of(facts)
        assert shown.status == order[count - 1]


def test_the_later_of_two_facts_counts() -> None:
    """The receiving server's last response counts."""
    early, late = {RecipientStatus.DELAYED: a_fact(1, "z")}, {RecipientStatus.DELAYED: a_fact(2, "a")}
    [joined] = recipients_of(merged({"jo@example.com": late}, {"jo@example.com": early}))
    assert (joined.fact.at, joined.fact.diagnostic) == (NOON + 2 * MINUTE, "a")


def test_counts_have_the_first_and_the_last_time() -> None:
    """The times are over all recipients."""
    facts = {
        "a@example.com": {RecipientStatus.DELIVERED: a_fact(1)},
        "b@example.com": {RecipientStatus.DELAYED: a_fact(0), RecipientStatus.BOUNCED: a_fact(9)},
    }
    assert counts_of(facts) == FeedbackCounts(delivered=1, bounced=1, first_at=NOON, last_at=NOON + 9 * MINUTE, rank=16)
    assert counts_of(NO_FACTS) is None


@pytest.mark.parametrize("later", [0, 9])
def test_a_bounce_of_a_sent_mail_replaces_one_of_an_unsent_mail(later: int) -> None:
    """SES does not send one mail because of its own list, and another to the same recipient bounces, in any order."""
    unsent, real = replace(a_fact(5), unsent=True), a_fact(later)
    facts = [{"jo@example.com": {RecipientStatus.BOUNCED: fact}} for fact in (unsent, real)]
    after, before = counts_of(merged(*facts)), counts_of(facts[0])
    assert after == counts_of(merged(*reversed(facts)))
    assert after is not None
    assert before is not None
    assert ((before.bounced, before.bounced_unsent), (after.bounced, after.bounced_unsent)) == ((1, 1), (1, 0))
    assert after.replaces(before)


@given(numbers=st.lists(st.integers(0, 200), min_size=60, max_size=120, unique=True))
def test_facts_of_too_many_recipients_are_cut_equally(numbers: list[int]) -> None:
    """A mail has at most fifty recipients; others must not fill the table."""
    each = [{f"{number:03}@example.com": {RecipientStatus.DELIVERED: a_fact(number)}} for number in numbers]
    forward, backward = NO_FACTS, NO_FACTS
    for facts in each:
        forward = merged(forward, facts)
    for facts in reversed(each):
        backward = merged(backward, facts)
    assert forward == backward
    assert len(forward) == MAX_RECIPIENTS


def test_no_representation_has_an_address() -> None:
    """Nor a server's response: exceptions and logs show `repr`."""
    facts = {"jo@example.com": {RecipientStatus.BOUNCED: a_fact(0, "no such user jo@example.com")}}
    assert "example.com" not in repr(recipients_of(facts))


def _all_of(fact: Fact) -> tuple[object, ...]:
    return fact.at, fact.smtp_status, fact.diagnostic, fact.since


@given(facts=st.permutations([a_fact(0, "a"), a_fact(3, "b"), a_fact(3, "c"), a_fact(9, "")]))
def test_a_later_fact_keeps_the_first_time(facts: list[Fact]) -> None:
    """`firstAt` of the record never moves, even after several facts."""
    joined = facts[0]
    for fact in facts[1:]:
        joined = joined.joined(fact)
    assert _all_of(joined) == (NOON + 9 * MINUTE, "", "", NOON)

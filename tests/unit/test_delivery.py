"""The delivery state machine: which changes a record allows, and their results."""

from dataclasses import replace
from datetime import timedelta

import pytest

from mailer.domain import changes, delivery
from mailer.domain.delivery import END_STATUSES, HOLDS, RULES, Guard, Status, WaitsFor, same_content
from mailer.domain.errors import EXPIRED
from support.fakes.ports import NOON, a_delivery
from support.transitions import BREAKS, CHANGES, COUNTS, DEFERRAL, ERROR, FENCE, LOST, MS, REQUEST, RESOLUTION, TIMEOUT, Case, cases, seen

OPEN = {Status.QUEUED, Status.DEFERRED}


# -- allows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in cases()])
def test_a_change_is_allowed_from_its_sources_if_its_guards_hold(case: Case) -> None:
    """Every rule is tested with every status, and with records that break one guard at a time."""
    assert delivery.allows(case.change, case.record) == case.allowed


def test_every_guard_is_tested() -> None:
    """Each guard is broken by some record of the grid."""
    assert set().union(*(broken for _, broken in BREAKS.values())) == set(Guard) == set(HOLDS)


def test_every_rule_has_a_change() -> None:
    """Every rule is in the grid."""
    assert CHANGES.keys() == RULES.keys()


def test_nothing_takes_over_a_request_in_progress() -> None:
    """Safety needs no clock: only its own worker, a proof of acceptance and `unknown` may change `sending`."""
    leaving = {name for name, rule in RULES.items() if Status.SENDING in rule.sources and rule.target is not None}
    assert leaving == {"accept", "confirm", "defer_attempt", "fail_rejected", "mark_unknown", "time_out"}
    assert all(Guard.SAME_ATTEMPT in RULES[name].guards for name in leaving - {"accept", "confirm"})


def test_only_an_acceptance_changes_a_final_status() -> None:
    """`sent`, `failed` and `cancelled` are final; an `unknown` may still be proven or resent."""
    for end in END_STATUSES - {Status.UNKNOWN}:
        leaving = {name for name, rule in RULES.items() if end in rule.sources}
        assert leaving == ({"note_feedback"} if end is Status.SENT else {"accept"})
    leaving = {name for name, rule in RULES.items() if Status.UNKNOWN in rule.sources}
    assert leaving == {"accept", "confirm", "defer_attempt", "fail_rejected", "resend", "resolve_resend", "annotate"}


@pytest.mark.parametrize("status", [Status.QUEUED, Status.DEFERRED])
def test_results_of_attempts_do_not_change_a_waiting_request(status: Status) -> None:
    """A result that arrives while the request waits again is too late, unless it is an acceptance."""
    leaving = {name for name, rule in RULES.items() if status in rule.sources}
    assert leaving == {"defer", "fail_unsent", "give_up", "begin", "accept", "confirm", "cancel", "annotate", "reschedule"}


def test_changes_of_waiting_requests_do_not_touch_a_request_in_progress() -> None:
    """Its time in the sweep index stays its deadline."""
    assert {name for name, rule in RULES.items() if Status.SENDING in rule.sources and rule.target is None} == {"annotate"}


def test_a_maybe_sent_request_never_ends_as_unsent() -> None:
    """A `maybeSent` record ends only as `sent` or `unknown`."""
    unsent = [rule for rule in RULES.values() if rule.target in (Status.FAILED, Status.CANCELLED)]
    assert len(unsent) == 3
    assert all(Guard.NOT_MAYBE_SENT in rule.guards for rule in unsent)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sha256-v1:aa", "sha256-v1:aa", True),
        ("sha256-v1:aa", "sha256-v1:bb", False),
        ("sha256-v1:aa", "sha256-v2:aa", True),  # another scheme: not comparable
        (None, "sha256-v1:aa", True),
        ("sha256-v1:aa", None, True),
    ],
)
def test_hashes_are_compared_within_their_scheme(one: str | None, other: str | None, same: bool) -> None:  # noqa: FBT001 - a table
    """With a new scheme, open requests do not count as reused ids."""
    assert same_content(one, other) is same


# -- apply ---------------------------------------------------------------------------------------------------------------


def test_the_fence_counts_the_attempt_and_names_its_owner() -> None:
    """Also for a request without a record."""
    first = delivery.apply(CHANGES["begin"](seen(RULES["begin"], Status.QUEUED)), None)
    assert (first.status, first.attempt, first.owner, first.generation) == (Status.SENDING, 1, "w3", 0)
    assert (first.content_hash, first.recipients, first.on_unknown, first.correlation_id) == ("sha256-v1:aa", 2, "resend", "c-1")
    again = delivery.apply(CHANGES["begin"](first), seen(RULES["begin"], Status.DEFERRED))
    assert (again.attempt, again.owner, again.due_at, again.waits_for, again.error) == (3, "w3", None, None, None)
    assert (again.deadline, again.sweep_at, again.provider_version) == (NOON + timedelta(seconds=20), NOON + timedelta(seconds=20), 7)


def test_an_existing_record_keeps_its_creation_and_expiry() -> None:
    """A producer's duplicate does not change them."""
    stored = seen(RULES["defer"], Status.QUEUED)
    late = replace(REQUEST, created_at=NOON + timedelta(hours=1), expires_at=NOON + timedelta(hours=25))
    waits = delivery.apply(changes.defer(late, NOON, DEFERRAL), stored)
    assert (waits.created_at, waits.expires_at, waits.recipients) == (stored.created_at, stored.expires_at, stored.recipients)


def test_an_ended_request_leaves_the_sweep_index() -> None:
    """The sweep index has only open records."""
    for name in ("accept", "confirm", "fail_rejected", "mark_unknown", "time_out", "give_up", "fail_unsent", "cancel"):
        rule = RULES[name]
        record = seen(rule, next(s for s in sorted(rule.sources, key=str) if s))
        assert delivery.apply(CHANGES[name](record), record).sweep_at is None, name


def test_a_lost_attempt_keeps_its_deadline() -> None:
    """The deadline shows when the worker is dead and a resend may follow."""
    record = seen(RULES["mark_unknown"], Status.SENDING)
    assert delivery.apply(CHANGES["mark_unknown"](record), record).deadline == record.deadline


def test_an_attempt_lost_for_good_is_only_resolved_by_an_operator() -> None:
    """The caller's `onUnknown` does not count then."""
    record = seen(RULES["mark_unknown"], Status.SENDING)
    lost = delivery.apply(changes.mark_unknown(REQUEST, NOON, FENCE, LOST, for_good=True), record)
    assert (lost.status, lost.on_unknown, lost.ended) == (Status.UNKNOWN, "hold", True)


def test_a_final_status_keeps_the_key_of_the_parked_body() -> None:
    """The key is needed to delete the body, or to resend a held unknown."""
    for name in ("accept", "confirm", "fail_rejected", "give_up", "mark_unknown", "begin", "cancel"):
        rule = RULES[name]
        record = seen(rule, next(s for s in sorted(rule.sources, key=str) if s))
        assert delivery.apply(CHANGES[name](record), record).parked == record.parked, name


def test_a_deferral_on_the_queue_is_swept_when_its_message_is_overdue() -> None:
    """The message returns by itself; half an hour later the sweeper checks it."""
    deferral = replace(DEFERRAL, on_queue=True, parked=None)
    waits = delivery.apply(changes.defer(REQUEST, NOON, deferral), None)
    assert waits.sweep_at == deferral.until + delivery.OVERDUE_AFTER


def test_a_parked_deferral_is_swept_when_it_is_due() -> None:
    """The sweeper requeues it."""
    assert delivery.apply(changes.defer(REQUEST, NOON, DEFERRAL), None).sweep_at == DEFERRAL.until


def test_every_open_record_is_swept_by_its_expiry() -> None:
    """A later due time does not delay that."""
    deferral = replace(DEFERRAL, until=REQUEST.expires_at + timedelta(hours=1))
    assert delivery.apply(changes.defer(REQUEST, NOON, deferral), None).sweep_at == REQUEST.expires_at


def test_a_request_deferred_for_an_operator_has_no_due_time() -> None:
    """Its next message is the newest and may be sent at once; it is swept when it expires."""
    deferred = delivery.apply(changes.defer_for_operator(REQUEST, NOON, ERROR, None), None)
    assert (deferred.due_at, deferred.generation, deferred.sweep_at) == (None, 4, REQUEST.expires_at)


def test_an_operator_s_resend_has_a_new_expiry_and_the_resolution() -> None:
    """The record has who and why, and counts as maybe sent from now on."""
    record = seen(RULES["resolve_resend"], Status.UNKNOWN)
    queued = delivery.apply(CHANGES["resolve_resend"](record), record)
    assert (queued.status, queued.maybe_sent, queued.resolution, queued.generation) == (Status.QUEUED, True, RESOLUTION, 4)
    assert queued.expires_at == NOON + timedelta(hours=24)


def test_a_request_that_was_given_up_can_be_resent_by_an_operator() -> None:
    """It has no worker that may still run."""
    record = replace(seen(RULES["give_up"], Status.DEFERRED), deadline=None)
    given_up = delivery.apply(changes.give_up(REQUEST, NOON, LOST), record)
    assert delivery.allows(changes.resolve_resend(given_up, NOON, TIMEOUT, RESOLUTION, NOON), given_up)


# -- events of SES -------------------------------------------------------------------------------------------------------


def test_an_event_of_an_attempt_shows_that_ses_accepted_it() -> None:
    """The record has SES's id and time, from any open status."""
    for status in (Status.SENDING, Status.UNKNOWN, Status.QUEUED, Status.DEFERRED):
        record = seen(RULES["confirm"], status)
        sent = delivery.apply(CHANGES["confirm"](record), record)
        assert (sent.status, sent.message_id, sent.sent_at, sent.error, sent.due_at) == (Status.SENT, "m-1", NOON - MS, None, None)


def test_attempts_that_ses_may_have_accepted_are_kept() -> None:
    """Each is kept with its account, which an event of it must match."""
    record = seen(RULES["resend"], Status.UNKNOWN)
    for name in ("resend", "resolve_resend"):
        again = delivery.apply(CHANGES["begin"](record), delivery.apply(CHANGES[name](record), record))
        assert again.attempt == 3
        assert again.sent_from(1) == ("111122223333", "eu-west-1")
        assert again.sent_from(2) == ("444455556666", "us-east-1")
        assert again.sent_from(3) == ("111122223333", "eu-west-1")
        assert [again.sent_from(attempt) for attempt in (0, 4)] == [None, None]


def test_an_attempt_that_is_requeued_twice_is_kept_once() -> None:
    """An unknown that was given up and is resent made no attempt in between."""
    record = seen(RULES["resend"], Status.UNKNOWN)
    once = delivery.apply(CHANGES["resend"](record), record)
    unknown = replace(once, status=Status.UNKNOWN)
    assert delivery.apply(CHANGES["resend"](unknown), unknown).earlier_attempts == once.earlier_attempts


def test_earlier_attempts_are_bounded() -> None:
    """The latest are kept; older ones have no known account, and later ones do not exist."""
    record = seen(RULES["resend"], Status.UNKNOWN)
    for attempt in range(2, 20):
        record = replace(record, status=Status.UNKNOWN, attempt=attempt)
        record = delivery.apply(CHANGES["resend"](record), record)
    assert [earlier.number for earlier in record.earlier_attempts] == list(range(10, 20))
    assert [record.sent_from(attempt) for attempt in (0, 1, 9, 20)] == [None, (None, None), (None, None), None]
    assert record.sent_from(10) == ("444455556666", "us-east-1")


def test_an_earlier_attempt_of_an_unknown_account_still_counts() -> None:
    """Its event is rejected for the unknown account, not as a forgery."""
    unknown = replace(seen(RULES["resend"], Status.UNKNOWN), account=None)
    again = delivery.apply(CHANGES["begin"](unknown), delivery.apply(CHANGES["resend"](unknown), unknown))
    assert again.sent_from(2) == (None, "us-east-1")


def test_the_id_of_a_mail_is_that_of_the_attempt_that_was_accepted() -> None:
    """Also if a later attempt has begun; an operator's messageId is not SES's."""
    record = seen(RULES["confirm"], Status.SENDING)
    sent = delivery.apply(changes.confirm(record, NOON, attempt=1, message_id="m-1", accepted_at=NOON, by="e-1"), record)
    assert (sent.message_id_of(1), sent.message_id_of(2)) == ("m-1", None)
    assert replace(sent, accepted_attempt=None).message_id_of(2) == "m-1"
    resolved = delivery.apply(changes.resolve_sent(record, NOON, "m-9", replace(RESOLUTION, outcome="sent")), record)
    assert (resolved.message_id, resolved.message_id_of(2)) == ("m-9", None)


def test_feedback_does_not_change_the_time_of_the_end() -> None:
    """The rest of the record stays the same at any time."""
    record = seen(RULES["note_feedback"], Status.SENT)
    updated = delivery.apply(replace(CHANGES["note_feedback"](record), now=NOON + timedelta(days=1)), record)
    assert updated == replace(record, feedback=COUNTS)


# -- already done --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["begin", "accept", "defer_attempt", "fail_rejected", "mark_unknown"])
def test_a_change_whose_reply_was_lost_is_recognized_by_its_owner(name: str) -> None:
    """The repeated change is rejected by the guards and recognized as done."""
    record = seen(RULES[name], Status.QUEUED if name == "begin" else Status.SENDING)
    change = CHANGES[name](record)
    done = delivery.apply(change, record)
    assert delivery.already_done(change, done)
    assert not delivery.already_done(change, replace(done, owner="w9"))
    assert not delivery.already_done(change, replace(done, status=Status.CANCELLED))
    assert not delivery.already_done(change, None)


def test_a_result_of_another_attempt_is_not_already_done() -> None:
    """An equal owner is not enough if the attempt differs."""
    done = replace(seen(RULES["accept"], Status.SENT), attempt=3)
    assert not delivery.already_done(CHANGES["accept"](done), done)


def test_a_proof_whose_reply_was_lost_is_recognized_by_its_event() -> None:
    """A copy of the event in another message does not count as done."""
    record = seen(RULES["confirm"], Status.UNKNOWN)
    change = CHANGES["confirm"](record)
    done = delivery.apply(change, record)
    assert delivery.already_done(change, done)
    assert not delivery.already_done(change, replace(done, confirmed_by="e-2"))
    assert not delivery.already_done(change, replace(done, status=Status.UNKNOWN))
    accepted = delivery.apply(CHANGES["accept"](record), record)
    assert not delivery.already_done(change, accepted)


def test_a_proof_by_an_event_is_not_the_worker_s_own_write() -> None:
    """The writer of the end reports it."""
    record = seen(RULES["confirm"], Status.SENDING)
    assert not delivery.already_done(CHANGES["accept"](record), delivery.apply(CHANGES["confirm"](record), record))


def test_a_change_without_an_owner_is_never_already_done() -> None:
    """Concurrent cancellations are distinguished by their caller."""
    record = replace(seen(RULES["cancel"], Status.CANCELLED), owner=None)
    assert not delivery.already_done(CHANGES["cancel"](record), record)


# -- properties of a record ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_a_record_expires_35_days_after_its_end(status: Status) -> None:
    """Open records do not expire."""
    record = a_delivery(status=status)
    assert record.forget_at == (NOON + timedelta(days=35) if status in END_STATUSES else None)


def test_an_unknown_that_will_be_resent_has_not_ended() -> None:
    """A caller that waits for the end waits on."""
    assert not a_delivery(status=Status.UNKNOWN, on_unknown="resend").ended
    assert a_delivery(status=Status.UNKNOWN, on_unknown="hold").ended
    assert not a_delivery(status=Status.DEFERRED).ended


def test_a_reschedule_sets_the_next_sweep() -> None:
    """By default it is half an hour later; for a release it is now."""
    record = a_delivery(status=Status.DEFERRED, waits_for=WaitsFor.PROVIDER)
    assert delivery.apply(changes.reschedule(record, NOON), record).sweep_at == NOON + delivery.OVERDUE_AFTER
    assert delivery.apply(changes.reschedule(record, NOON, sweep_at=NOON), record).sweep_at == NOON
    soon = replace(record, expires_at=NOON + MS)
    assert delivery.apply(changes.reschedule(soon, NOON), soon).sweep_at == NOON + MS


def test_a_request_s_record_describes_the_same_request() -> None:
    """A record from the table can be changed like a request from the queue."""
    recorded = delivery.apply(changes.fail_unsent(replace(REQUEST, generation=0), NOON, EXPIRED), None)
    assert changes.request_of(recorded) == replace(REQUEST, generation=0)

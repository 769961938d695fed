"""The effect of each call on a provider's row, and of the row on sending."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from mailer.domain import lifecycle
from mailer.domain.errors import CODES, ErrorInfo, RequestError
from mailer.domain.lifecycle import SANDBOX_MAY_BE, VerificationResult
from mailer.domain.provider import Blocked, Provider, ProviderStatus, Resumption, StoredConfig, sending_state
from support.fakes.ports import NOON, a_config, a_provider
from support.fakes.providers import FakeStore

ACTIVE, DISABLED, SUSPENDED = ProviderStatus.ACTIVE, ProviderStatus.DISABLED, ProviderStatus.SUSPENDED
UNVERIFIED, DELETED = ProviderStatus.UNVERIFIED, ProviderStatus.DELETED
LATER = NOON + timedelta(hours=1)
PASSED = VerificationResult(at=LATER)
DENIED = ErrorInfo("credentials_denied", "AWS denied ses:SendRawEmail in eu-west-1")


def unverified(**fields: Any) -> Provider:
    return a_provider(status=UNVERIFIED, active=None, candidate=a_config(), verified_at=None, **fields)


def suspended(**fields: Any) -> Provider:
    return a_provider(status=SUSPENDED, error=DENIED, faulty_requests=frozenset({"r1", "r2", "r3"}), **fields)


def tombstone(**fields: Any) -> Provider:
    return lifecycle.delete(a_provider(**fields), NOON)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as refusal:
        call()
    return refusal.value.code


# -- store ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [ACTIVE, DISABLED, SUSPENDED])
def test_a_new_config_does_not_replace_the_active_one(status: ProviderStatus) -> None:
    """Storing changes neither the status nor the config that is used for sending."""
    row = a_provider(status=status)
    stored = lifecycle.store(row, a_config(version=2), LATER)
    assert (stored.status, stored.active, stored.candidate) == (status, row.active, a_config(version=2))
    assert (stored.versions, stored.updated_at) == (2, LATER)


def test_a_newer_candidate_replaces_the_older() -> None:
    """There is one candidate; the old ciphertext is removed."""
    stored = lifecycle.store(unverified(), a_config(version=2), LATER)
    assert (stored.candidate, stored.active, stored.status) == (a_config(version=2), None, UNVERIFIED)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_config_must_have_the_next_version(version: int) -> None:
    """No version is reused or skipped: the caches of configs and sessions depend on it."""
    with pytest.raises(ValueError, match="next version"):
        lifecycle.store(a_provider(), a_config(version=version), NOON)


def test_versions_continue_after_delete() -> None:
    """DELETE keeps the counter and the ExternalId, so a new config is never mistaken for an old one."""
    row = tombstone(versions=7)
    stored = lifecycle.store(row, a_config(version=8), LATER)
    assert (stored.versions, stored.encrypted_external_id, stored.status, stored.deleted_at) == (
        8,
        row.encrypted_external_id,
        UNVERIFIED,
        NOON,
    )


# -- verify --------------------------------------------------------------------------------------------------------------


def test_verify_promotes_the_candidate() -> None:
    """The candidate becomes the active config, and the old one is removed."""
    row = a_provider(versions=2, candidate=a_config(version=2, ciphertext=b"new"))
    verified = lifecycle.verify(row, 2, PASSED)
    assert (verified.active, verified.candidate, verified.status) == (row.candidate, None, ACTIVE)
    assert b"sealed" not in repr(verified).encode()
    assert (verified.verified_at, verified.release_at) == (LATER, LATER)


def test_verify_tests_the_candidate_first() -> None:
    """With a candidate verify tests it, otherwise the active config."""
    assert lifecycle.to_verify(a_provider(candidate=a_config(version=2))).version == 2
    assert lifecycle.to_verify(a_provider()).version == 1


def test_verify_lifts_a_suspension() -> None:
    """A passing verify of the suspended version resumes it, clears its faults, and releases waiting mail."""
    verified = lifecycle.verify(suspended(), 1, PASSED)
    assert (verified.status, verified.error, verified.faulty_requests, verified.release_at) == (ACTIVE, None, frozenset(), LATER)


def test_verify_leaves_a_disabled_provider_disabled() -> None:
    """The candidate is still promoted, but waiting mail is not released."""
    row = a_provider(status=DISABLED, candidate=a_config(version=2))
    verified = lifecycle.verify(row, 2, PASSED)
    assert (verified.status, verified.active, verified.release_at) == (DISABLED, a_config(version=2), None)


def test_verify_promotes_only_what_was_tested() -> None:
    """A config that was stored during the test is not promoted by it."""
    row = a_provider(versions=3, candidate=a_config(version=3))
    assert refused(lambda: lifecycle.verify(row, 2, PASSED)) == "provider_not_active"
    assert refused(lambda: lifecycle.fail_verify(row, 2, DENIED, NOON)) == "provider_not_active"


def test_verify_is_idempotent() -> None:
    """A promotion whose reply was lost is decided again with the same result."""
    once = lifecycle.verify(a_provider(versions=2, candidate=a_config(version=2)), 2, PASSED)
    assert lifecycle.verify(once, 2, PASSED) == once


@pytest.mark.parametrize("row", [None, tombstone()], ids=["none", "tombstone"])
def test_calls_without_a_provider_are_not_found(row: Provider | None) -> None:
    """Every call for a tenant without a provider is not found."""
    calls: list[Callable[[], object]] = [
        lambda: lifecycle.to_verify(row),
        lambda: lifecycle.verify(row, 1, PASSED),
        lambda: lifecycle.fail_verify(row, 1, DENIED, NOON),
        lambda: lifecycle.disable(row, NOON),
        lambda: lifecycle.enable(row, NOON),
    ]
    assert {refused(call) for call in calls} == {"not_found"}


def test_verify_stores_the_facts_of_the_account() -> None:
    """Account, rate and quota are stored with their version."""
    passed = VerificationResult(at=LATER, account="222222222222", sandbox=False, quota_rate=14.0, quota_24h=50_000.0)
    active = lifecycle.verify(unverified(), 1, passed).active
    assert active is not None
    assert (active.account, active.quota_rate, active.quota_24h) == ("222222222222", 14.0, 50_000.0)


@pytest.mark.parametrize("before", ["unknown", "true", "false"])
@pytest.mark.parametrize(("reported", "shown"), [(True, "true"), (False, "false"), (None, "unknown")])
def test_sandbox_is_what_the_account_reports_now(before: Any, reported: bool | None, shown: str) -> None:  # noqa: FBT001
    """Without a report it becomes unknown: an account that left the sandbox must not stay marked by an old result."""
    after = lifecycle.verify(a_provider(sandbox=before), 1, VerificationResult(at=LATER, sandbox=reported))
    assert after.sandbox == shown
    assert any("is in the sandbox" in warning for warning in after.warnings) is (shown == "true")


def test_first_verify_warns_of_the_sandbox() -> None:
    """The original system's warning is shown by the first verify only; a known sandbox by every verify."""
    first = lifecycle.verify(unverified(), 1, PASSED)
    assert first.warnings == (SANDBOX_MAY_BE,)
    assert lifecycle.verify(first, 1, PASSED).warnings == ()
    [warning] = lifecycle.verify(first, 1, VerificationResult(at=LATER, sandbox=True)).warnings
    assert "eu-west-1" in warning


def test_smtp_has_no_sandbox() -> None:
    """A development sink is not warned about SES."""
    row = unverified()
    assert row.candidate is not None
    smtp = replace(row, candidate=replace(row.candidate, provider="smtp", credentials={"type": "smtp", "host": "localhost:1025"}))
    assert lifecycle.verify(smtp, 1, PASSED).warnings == ()


def test_a_failed_verify_does_not_change_the_active_config() -> None:
    """The error is stored with the candidate; status, active config and suspension do not change."""
    row = a_provider(candidate=a_config(version=2))
    failed = lifecycle.fail_verify(row, 2, DENIED, LATER)
    assert (failed.status, failed.active, failed.error) == (ACTIVE, row.active, None)
    assert failed.candidate == a_config(version=2, error=DENIED)


def test_a_failed_verify_of_the_active_config_does_not_suspend() -> None:
    """Only failed mail counts towards a suspension."""
    failed = lifecycle.fail_verify(a_provider(), 1, DENIED, LATER)
    assert (failed.status, failed.faulty_requests, failed.active) == (ACTIVE, frozenset(), a_config(error=DENIED))


# -- disable, enable, delete ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [a_provider(), unverified(), suspended()], ids=["active", "unverified", "suspended"])
def test_disable_works_in_every_status(row: Provider) -> None:
    """It is for emergencies: it has no conditions and is idempotent."""
    disabled = lifecycle.disable(row, LATER)
    assert disabled.status is DISABLED
    assert lifecycle.disable(disabled, LATER) is disabled


def test_enable_reactivates_a_disabled_provider() -> None:
    """The config is active again, and waiting mail is released."""
    enabled = lifecycle.enable(a_provider(status=DISABLED), LATER)
    assert (enabled.status, enabled.release_at) == (ACTIVE, LATER)


def test_enable_does_not_lift_a_suspension() -> None:
    """Disabling and enabling does not replace a verify."""
    enabled = lifecycle.enable(lifecycle.disable(suspended(), NOON), LATER)
    assert (enabled.status, enabled.error, enabled.release_at) == (SUSPENDED, DENIED, None)


@pytest.mark.parametrize(
    "row",
    [unverified(), suspended(), a_provider(status=DISABLED, active=None, candidate=a_config())],
    ids=["unverified", "suspended", "disabled-unverified"],
)
def test_enable_does_not_replace_a_verify(row: Provider) -> None:
    """A config that never passed, or that was suspended, needs a verify."""
    assert refused(lambda: lifecycle.enable(row, LATER)) == "provider_not_active"


AT_RISK = ErrorInfo("reputation_at_risk", "30 bounces of 200 recipients")
RESUMPTION = Resumption("sam", "the bought list is gone", LATER)


def at_risk(**fields: Any) -> Provider:
    return a_provider(status=SUSPENDED, error=AT_RISK, **fields)


@pytest.mark.parametrize("row", [at_risk(), at_risk(candidate=a_config(version=2), versions=2)])
def test_a_verify_does_not_lift_a_suspension_for_reputation(row: Provider) -> None:
    """The config is valid, and a passing candidate becomes active; the mail waits for an operator's reason."""
    passed = lifecycle.verify(row, row.versions, PASSED)
    assert (passed.status, passed.error, passed.release_at) == (SUSPENDED, AT_RISK, None)
    assert (passed.active and passed.active.version, passed.verified_at) == (row.versions, LATER)


def test_enable_with_who_and_why_lifts_a_suspension_for_reputation() -> None:
    """Waiting mail is released, and the row has the reason."""
    enabled = lifecycle.enable(at_risk(), LATER, RESUMPTION)
    assert (enabled.status, enabled.error, enabled.resumption, enabled.release_at) == (ACTIVE, None, RESUMPTION, LATER)


def test_enable_without_a_reason_does_not_lift_it() -> None:
    """Neither does disabling and enabling."""
    with pytest.raises(RequestError) as refusal:
        lifecycle.enable(at_risk(), LATER)
    assert (refusal.value.code, "by, why" in str(refusal.value)) == ("provider_not_active", True)
    assert refusal.value.remediation == CODES["reputation_at_risk"].hint
    enabled_again = lifecycle.enable(lifecycle.disable(at_risk(), NOON), LATER)
    assert (enabled_again.status, enabled_again.error, enabled_again.release_at) == (SUSPENDED, AT_RISK, None)
    assert lifecycle.enable(lifecycle.disable(at_risk(), NOON), LATER, RESUMPTION).status is ACTIVE


@pytest.mark.parametrize("row", [at_risk(), lifecycle.disable(at_risk(), NOON)], ids=["suspended", "disabled"])
def test_a_new_provider_does_not_lift_it(row: Provider) -> None:
    """After delete, store and verify the mail still waits; only a reason lifts the suspension."""
    stored = lifecycle.store(lifecycle.delete(row, LATER), a_config(version=2), LATER)
    assert stored.status is UNVERIFIED
    assert refused(lambda: lifecycle.enable(stored, LATER, RESUMPTION)) == "provider_not_active"
    verified = lifecycle.verify(stored, 2, PASSED)
    assert (verified.status, verified.error, verified.release_at) == (SUSPENDED, AT_RISK, LATER)
    assert sending_state(verified, LATER + timedelta(hours=1)) == Blocked(AT_RISK, waits=True)
    assert refused(lambda: lifecycle.enable(verified, LATER)) == "provider_not_active"
    assert lifecycle.enable(verified, LATER, RESUMPTION).status is ACTIVE


def test_delete_keeps_the_resumption() -> None:
    """Otherwise a late bounce would make the guard judge the old mail again."""
    resumed = lifecycle.enable(at_risk(), LATER, RESUMPTION)
    assert lifecycle.delete(resumed, LATER).resumption == RESUMPTION
    assert lifecycle.delete(suspended(), LATER).error is None


def test_a_reason_lifts_only_a_suspension_for_reputation() -> None:
    """A faulty account needs a verify; without a risk no reason is stored."""
    assert refused(lambda: lifecycle.enable(suspended(), LATER, RESUMPTION)) == "provider_not_active"
    both = at_risk(faulty_requests=frozenset({"r1", "r2", "r3"}))
    assert lifecycle.enable(both, LATER, RESUMPTION).status is SUSPENDED
    active = a_provider()
    assert lifecycle.enable(active, LATER, RESUMPTION) is active
    assert lifecycle.enable(a_provider(status=DISABLED), LATER, RESUMPTION).resumption is None


def test_mail_waits_while_the_reputation_is_at_risk() -> None:
    """Its records have the reason and who must act."""
    blocked = sending_state(at_risk())
    assert blocked == Blocked(AT_RISK, waits=True)
    assert AT_RISK.hint.startswith("Operator: ")


def test_enable_changes_nothing_on_an_active_provider() -> None:
    """It is idempotent."""
    row = a_provider()
    assert lifecycle.enable(row, LATER) is row


def test_delete_leaves_a_tombstone() -> None:
    """Config, warnings and errors are removed; the counter, the ExternalId and the time stay, and waiting mail is released, to fail."""
    row = suspended(versions=4, candidate=a_config(version=4), warnings=("w",), sandbox="true", revision=9)
    deleted = lifecycle.delete(row, LATER)
    assert deleted == Provider(
        tenant_id="acme",
        status=DELETED,
        versions=4,
        encrypted_external_id=row.encrypted_external_id,
        updated_at=LATER,
        deleted_at=LATER,
        release_at=LATER,
        revision=9,
    )
    assert lifecycle.delete(deleted, LATER + timedelta(hours=1)) is deleted


# -- the effect on sending -----------------------------------------------------------------------------------------------

SENDING_STATES: list[tuple[str, Provider | None, tuple[str, bool] | None]] = [
    ("no row", None, ("provider_not_configured", False)),
    ("ExternalId only", lifecycle.reserve("acme", b"x", NOON), ("provider_not_configured", False)),
    ("unverified", unverified(), ("provider_not_active", False)),
    ("disabled, never verified", lifecycle.disable(unverified(), NOON), ("provider_not_active", False)),
    ("active", a_provider(), None),
    ("active with a candidate", a_provider(candidate=a_config(version=2)), None),
    ("disabled", a_provider(status=DISABLED), ("provider_not_active", True)),
    ("suspended", suspended(), ("credentials_denied", True)),
    ("deleted", tombstone(), ("provider_not_configured", False)),
]


@pytest.mark.parametrize(
    ("row", "blocked"), [(row, blocked) for _, row, blocked in SENDING_STATES], ids=[name for name, _, _ in SENDING_STATES]
)
def test_the_status_determines_whether_mail_is_sent(row: Provider | None, blocked: tuple[str, bool] | None) -> None:
    """An active provider sends with its active config; with disabled and suspended ones mail waits; without one it fails at once."""
    state = sending_state(row, LATER)
    if blocked is None:
        assert state == a_config()
    else:
        assert isinstance(state, Blocked)
        assert (state.error.code, state.waits) == blocked


@pytest.mark.parametrize("since", [None, "unverified", "active"], ids=["deleted", "stored anew", "verified anew"])
def test_delete_fails_earlier_requests(since: str | None) -> None:
    """Requests from before the deletion fail with that reason, also if another provider was stored and verified since."""
    row = tombstone()
    if since:
        row = lifecycle.store(row, a_config(version=2), NOON)
    if since == "active":
        row = lifecycle.verify(row, 2, PASSED)
    before = sending_state(row, NOON - timedelta(seconds=1))
    assert isinstance(before, Blocked)
    assert (before.error.code, before.waits) == ("provider_deleted", False)
    after = sending_state(row, NOON + timedelta(seconds=1))
    assert isinstance(after, StoredConfig) if since == "active" else isinstance(after, Blocked) and after.error.code != "provider_deleted"


# -- interleavings -------------------------------------------------------------------------------------------------------


class Caller:
    """One API call in two steps, so that another caller's steps can be in between: read and decide, then write."""

    def __init__(self, call: Callable[[Provider | None], Provider]) -> None:
        self.call = call
        self.decided: Provider | None = None
        self.reread = 0

    def read(self, store: FakeStore) -> None:
        try:
            row = store.get("acme")
            self.decided = self.call(row)
        except RequestError:
            self.decided = None

    def write(self, store: FakeStore) -> None:
        """Write like `services.providers.change`: after a lost race read and decide again."""
        while self.decided is not None and not store.replace(self.decided):
            self.reread += 1
            self.read(store)


def put(name: bytes) -> Callable[[Provider | None], Provider]:
    def call(row: Provider | None) -> Provider:
        row = row or lifecycle.reserve("acme", b"x", NOON)
        return lifecycle.store(row, a_config(version=row.versions + 1, ciphertext=name + b"%d" % (row.versions + 1)), NOON)

    return call


def interleavings(callers: int) -> Iterator[tuple[int, ...]]:
    """Yield every order of the steps of some callers, each with a read before its write."""
    yield from set(permutations([caller for caller in range(callers) for _ in range(2)]))


CALLS: dict[str, Callable[[Provider | None], Provider]] = {
    "put": put(b"a"),
    "put too": put(b"b"),
    "verify 2": lambda row: lifecycle.verify(row, 2, PASSED),
    "disable": lambda row: lifecycle.disable(row, NOON),
    "enable": lambda row: lifecycle.enable(row, NOON),
    "delete": lambda row: lifecycle.delete(lifecycle.existing(row), NOON),
}


@pytest.mark.parametrize("names", list(permutations(CALLS, 3)), ids=" | ".join)
def test_concurrent_calls_are_serializable(names: tuple[str, str, str]) -> None:
    """Three concurrent calls, in every order of their steps, have the result of some serial order."""
    start = a_provider(versions=2, candidate=a_config(version=2, ciphertext=b"tested2"), revision=1)
    serial = {serial_result(start, order) for order in permutations(names)}
    for order in interleavings(3):
        store = FakeStore(start)
        callers = [Caller(CALLS[name]) for name in names]
        seen: set[int] = set()
        for number in order:
            caller = callers[number]
            (caller.write if number in seen else caller.read)(store)
            seen.add(number)
        assert facts(store.rows["acme"]) in serial


def serial_result(start: Provider, names: tuple[str, ...]) -> tuple[Any, ...]:
    store = FakeStore(start)
    for name in names:
        caller = Caller(CALLS[name])
        caller.read(store)
        caller.write(store)
    return facts(store.rows["acme"])


def facts(row: Provider) -> tuple[Any, ...]:
    ciphertexts = tuple(config.ciphertext if config else None for config in (row.active, row.candidate))
    return row.status, row.versions, *ciphertexts


def test_without_the_revision_versions_are_reused() -> None:
    """This tests the test above: a store without the condition gives two configs the same version."""

    class UnconditionalStore(FakeStore):
        def replace(self, row: Provider) -> bool:
            self.rows[row.tenant_id] = row
            return True

    store = UnconditionalStore(a_provider())
    first, second = Caller(put(b"a")), Caller(put(b"b"))
    for caller in (first, second):
        caller.read(store)
    for caller in (first, second):
        caller.write(store)
    assert store.rows["acme"].versions == 2  # two configs were stored

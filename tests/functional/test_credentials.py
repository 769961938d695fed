"""A tenant's credentials: its access key, or sessions of its role, assumed once and never in our own account."""

import gc
import json
import threading
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from moto import mock_aws

from mailer.adapters.providers import credentials
from mailer.adapters.providers.credentials import SESSION_POLICY, AssumedRoles, RoleAssumption, RoleCredentials, StaticCredentials
from mailer.adapters.providers.shared_cache import SharedEntry
from mailer.domain.errors import DependencyError, NotSentError
from support import tenants

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWN_ACCOUNT = "111111111111"
TRUSTED = RoleAssumption("acme", 3, tenants.ROLE_ARN, "external-id-of-acme")


class Clock:
    time = NOON

    def now(self) -> datetime:
        return self.time

    def wait_until(self, moment: datetime) -> None:
        self.time = max(self.time, moment)


class Sts:
    """Roles by ARN with the ExternalId that each trust policy requires (None: none)."""

    token = "canary-session-token"

    def __init__(self, clock: Clock, trust: Mapping[str, str | None] | None = None) -> None:
        self.clock, self.trust = clock, trust or {tenants.ROLE_ARN: TRUSTED.external_id}
        self.calls: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.lock = threading.Lock()

    def assume_role(self, **call: Any) -> dict[str, Any]:
        with self.lock:
            self.calls.append(call)
            number = len(self.calls)
        if self.failure:
            raise self.failure
        wanted = self.trust.get(call["RoleArn"], "nobody")
        if wanted is not None and call.get("ExternalId") != wanted:
            raise denied()
        ends = self.clock.time + timedelta(seconds=call["DurationSeconds"])
        return {
            "Credentials": {
                "AccessKeyId": f"ASIA{number}",
                "SecretAccessKey": "canary-session-secret",
                "SessionToken": f"{self.token}-{number}",
                "Expiration": ends,
            }
        }


def failed(code: str, text: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": text}}, "AssumeRole")


def denied(text: str = "User: arn:aws:sts::111111111111:assumed-role/send/x is not authorized to perform: sts:AssumeRole") -> ClientError:
    return failed("AccessDenied", text)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sts(clock: Clock) -> Sts:
    return Sts(clock)


def made(sts: Sts, clock: Clock, shared: Any = None, size: int = 1_000_000) -> AssumedRoles:
    """Return the roles of a new sandbox."""
    client: Any = sts
    return AssumedRoles(lambda: client, own_account=OWN_ACCOUNT, platform="Lead metrics", clock=clock, shared=shared, size=size)


@pytest.fixture
def roles(sts: Sts, clock: Clock) -> AssumedRoles:
    return made(sts, clock)


# ── access keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_access_key_is_used_as_configured() -> None:
    """Without a call, and without an expiry."""
    assert StaticCredentials(tenants.access_key()).current() == ReadOnlyCredentials(tenants.ACCESS_KEY_ID, tenants.SECRET, None)


def test_the_secret_is_in_no_repr() -> None:
    """Not in the output of a debugger, a log line or an exception."""
    assert tenants.SECRET not in f"{StaticCredentials(tenants.access_key())!r} {tenants.access_key()!r} {tenants.access_key()}"


# ── roles ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_role_is_assumed_with_the_external_id_and_only_for_sending(roles: AssumedRoles, sts: Sts) -> None:
    """The session policy allows sending, and reading and lifting suppressions, and nothing else that the tenant's role may allow."""
    assert roles.session(TRUSTED).access_key == "ASIA1"
    [call] = sts.calls
    assert (call["RoleArn"], call["ExternalId"]) == (tenants.ROLE_ARN, TRUSTED.external_id)
    [statement] = json.loads(call["Policy"])["Statement"]
    sending = ["ses:SendRawEmail", "ses:SendEmail", "ses:GetSendQuota", "ses:GetAccount"]
    rights = [*sending, "ses:GetSuppressedDestination", "ses:DeleteSuppressedDestination"]
    assert statement == {"Effect": "Allow", "Action": rights, "Resource": "*"}


def test_the_session_name_identifies_us_in_the_tenant_s_cloudtrail(roles: AssumedRoles, sts: Sts) -> None:
    """Platform, tenant and version, within STS's characters and length."""
    roles.session(TRUSTED)
    roles.session(RoleAssumption("t" * 64, 1, tenants.ROLE_ARN, TRUSTED.external_id))
    assert [call["RoleSessionName"] for call in sts.calls] == ["Lead-metrics-acme-v3", "Lead-metrics-" + "t" * 51]


def test_the_call_is_valid_for_sts(clock: Clock) -> None:
    """Names, lengths and policy pass the SDK's model of STS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        with mock_aws():
            client = boto3.client("sts", region_name="eu-central-1")
            roles = AssumedRoles(lambda: client, own_account=OWN_ACCOUNT, platform="Leadmetrics", clock=clock)
            assert roles.session(TRUSTED).token
            assert len(SESSION_POLICY) < 2048


def test_a_batch_assumes_a_role_once(roles: AssumedRoles, sts: Sts) -> None:
    """32 threads with mail of one tenant: one STS call."""
    with ThreadPoolExecutor(32) as pool:
        sessions = list(pool.map(lambda _: roles.session(TRUSTED), range(200)))
    assert len(set(sessions)) == len(sts.calls) == 1
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: roles.prepare(TRUSTED), range(200)))
    assert len(sts.calls) == 1


def test_tenants_and_versions_never_share_a_session(roles: AssumedRoles, sts: Sts) -> None:
    """The same role for another tenant, version or ExternalId is assumed again, and after another verify."""
    others = [
        TRUSTED,
        RoleAssumption("other", 3, tenants.ROLE_ARN, TRUSTED.external_id),
        RoleAssumption("acme", 4, tenants.ROLE_ARN, TRUSTED.external_id),
        RoleAssumption("acme", 3, tenants.ROLE_ARN, TRUSTED.external_id, NOON),
    ]
    assert len({roles.session(assumption) for assumption in others}) == len(sts.calls) == 4
    with pytest.raises(NotSentError):
        roles.session(RoleAssumption("acme", 3, tenants.ROLE_ARN, "another"))


def test_a_session_is_replaced_five_minutes_before_it_expires(roles: AssumedRoles, clock: Clock) -> None:
    """No call may outlast its session."""
    first = roles.session(TRUSTED)
    clock.time = NOON + timedelta(minutes=54, seconds=59)
    assert roles.session(TRUSTED) == first
    clock.time = NOON + timedelta(minutes=55)
    assert roles.session(TRUSTED) != first


def test_a_session_is_renewed_early_by_one_thread_that_prepares_a_message(roles: AssumedRoles, sts: Sts, clock: Clock) -> None:
    """In time for the next call, not after the fence; the time differs between sandboxes."""
    roles.prepare(TRUSTED)
    clock.time = NOON + timedelta(minutes=50) - timedelta(microseconds=1)
    roles.prepare(TRUSTED)
    clock.time = NOON + timedelta(minutes=54)
    first = roles.session(TRUSTED)
    assert len(sts.calls) == 1
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: roles.prepare(TRUSTED), range(200)))
    assert len(sts.calls) == 2
    assert roles.session(TRUSTED) != first


def test_early_renewals_are_spread(sts: Sts, clock: Clock) -> None:
    """Sessions that started at the same time are not all renewed at the same time."""
    moments = set()
    for number in range(50):
        roles = made(sts, clock)
        roles.prepare(TRUSTED)
        [kept] = roles._sessions._kept.values()
        moments.add(kept.renew_at)
        assert timedelta(minutes=50) <= kept.renew_at - NOON <= timedelta(minutes=54), number
    assert len(moments) == 50


def test_an_existing_session_is_used_during_an_outage_of_sts(roles: AssumedRoles, sts: Sts, clock: Clock) -> None:
    """The minutes between the first renewal and the expiry are for that."""
    roles.prepare(TRUSTED)
    sts.failure = failed("Throttling")
    clock.time = NOON + timedelta(minutes=54, seconds=59)
    for _ in range(10):
        roles.prepare(TRUSTED)
    assert roles.session(TRUSTED).access_key == "ASIA1"
    assert len(sts.calls) == 2
    clock.time = NOON + timedelta(minutes=55)
    with pytest.raises(DependencyError):
        roles.prepare(TRUSTED)


def test_cached_sessions_are_bounded_by_memory(sts: Sts, clock: Clock) -> None:
    """The bound is in real bytes, with tokens as long as AWS's."""
    roles = made(sts, clock, size=3_000_000)
    sts.trust = dict.fromkeys([tenants.ROLE_ARN, *(f"{tenants.ROLE_ARN}{n}" for n in range(2000))])
    sts.token = "x" * 900
    roles.prepare(TRUSTED)
    gc.collect()
    tracemalloc.start()
    before = roles._sessions.weight
    for n in range(1500):
        roles.prepare(RoleAssumption(f"tenant-{n}", 1, f"{tenants.ROLE_ARN}{n}", TRUSTED.external_id))
        sts.calls.clear()
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.7 < taken / (roles._sessions.weight - before) <= 1
    for n in range(1500, 2000):
        roles.prepare(RoleAssumption(f"tenant-{n}", 1, f"{tenants.ROLE_ARN}{n}", TRUSTED.external_id))
    assert 2_990_000 < roles._sessions.weight <= 3_000_000


# ── shared ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Shared:
    """The entries that the sandboxes share, by kind and context."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, bytes], SharedEntry] = {}

    def find(self, kind: str, context: bytes) -> SharedEntry | None:
        return self.entries.get((kind, context))

    def keep(self, kind: str, context: bytes, plaintext: bytes, until: datetime) -> None:
        self.entries[kind, context] = SharedEntry(plaintext, until)


def test_sandboxes_share_one_assume_role(sts: Sts, clock: Clock) -> None:
    """A session of another sandbox is used too: one AssumeRole in most of an hour, for any number of sandboxes."""
    shared = Shared()
    sandboxes = [made(sts, clock, shared) for _ in range(10)]
    for sandbox in sandboxes:
        sandbox.prepare(TRUSTED)
    assert {sandbox.session(TRUSTED) for sandbox in sandboxes} == {sandboxes[0].session(TRUSTED)}
    assert len(sts.calls) == 1
    clock.time = NOON + timedelta(minutes=54)
    for sandbox in sandboxes:
        sandbox.prepare(TRUSTED)
    assert {sandbox.session(TRUSTED).access_key for sandbox in sandboxes} == {"ASIA2"}
    assert len(sts.calls) == 2


@pytest.mark.parametrize(
    "other",
    [
        RoleAssumption("other", 3, tenants.ROLE_ARN, TRUSTED.external_id),
        RoleAssumption("acme", 4, tenants.ROLE_ARN, TRUSTED.external_id),
        RoleAssumption("acme", 3, f"{tenants.ROLE_ARN}2", TRUSTED.external_id),
        RoleAssumption("acme", 3, tenants.ROLE_ARN, "changed"),
        RoleAssumption("acme", 3, tenants.ROLE_ARN, TRUSTED.external_id, NOON),
    ],
    ids=["tenant", "version", "role", "ExternalId", "verify"],
)
def test_a_session_is_shared_only_for_the_same_parameters(sts: Sts, clock: Clock, other: RoleAssumption) -> None:
    """A changed ExternalId takes effect at once, and no tenant gets another's session."""
    shared = Shared()
    sts.trust = dict.fromkeys([tenants.ROLE_ARN, f"{tenants.ROLE_ARN}2"])
    roles = made(sts, clock, shared)
    roles.prepare(TRUSTED)
    for sandbox in (roles, made(sts, clock, shared)):
        sandbox.prepare(other)
        assert sandbox.session(other) != roles.session(TRUSTED)
    assert [call["ExternalId"] for call in sts.calls] == [TRUSTED.external_id, other.external_id]


def test_after_the_fence_the_table_is_not_read(sts: Sts, clock: Clock) -> None:
    """A session that expired since it was prepared, or that SES refuses, is replaced by STS directly, to save time."""
    shared = Shared()
    roles = made(sts, clock, shared)
    roles.prepare(TRUSTED)
    shared.entries.clear()
    clock.time = NOON + timedelta(minutes=55)
    second = roles.session(TRUSTED)
    assert roles.renewed(TRUSTED, second) != second
    assert (len(sts.calls), shared.entries) == (3, {})


def test_an_expired_session_is_replaced_for_the_other_sandboxes_too(sts: Sts, clock: Clock) -> None:
    """By the next mail, before its fence; the new one is renewed early like any other."""
    shared = Shared()
    roles = made(sts, clock, shared)
    roles.prepare(TRUSTED)
    second = roles.renewed(TRUSTED, roles.session(TRUSTED))
    roles.prepare(TRUSTED)
    fresh = made(sts, clock, shared)
    fresh.prepare(TRUSTED)
    assert (fresh.session(TRUSTED), len(sts.calls)) == (second, 2)
    shared.entries.clear()
    roles.prepare(TRUSTED)
    assert not shared.entries  # it is shared once
    clock.time = NOON + timedelta(minutes=54, seconds=30)
    roles.prepare(TRUSTED)
    assert len(sts.calls) == 3


@pytest.mark.parametrize("changed", ["SESSION_POLICY", "platform"])
def test_a_session_of_another_version_of_this_service_is_not_used(
    sts: Sts, clock: Clock, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """It may have other rights, or another session name."""
    shared = Shared()
    made(sts, clock, shared).prepare(TRUSTED)
    client: Any = sts
    monkeypatch.setattr(credentials, "SESSION_POLICY", "{}" if changed == "SESSION_POLICY" else credentials.SESSION_POLICY)
    platform = "Renamed" if changed == "platform" else "Lead metrics"
    AssumedRoles(lambda: client, own_account=OWN_ACCOUNT, platform=platform, clock=clock, shared=shared).prepare(TRUSTED)
    assert len(sts.calls) == 2


def test_an_expired_session_is_replaced_once_for_all_threads(roles: AssumedRoles, sts: Sts) -> None:
    """If SES reports a session as expired before its time, the threads that used it share the next one."""
    keys = RoleCredentials(roles, TRUSTED)
    expired = keys.current()
    with ThreadPoolExecutor(8) as pool:
        renewed = set(pool.map(lambda _: keys.renewed(expired), range(32)))
    assert len(renewed) == 1
    assert expired not in renewed
    assert len(sts.calls) == 2


def test_a_role_of_our_own_account_is_never_assumed(roles: AssumedRoles, sts: Sts) -> None:
    """Otherwise a tenant could make us assume one of our own roles; STS is not called."""
    own = f"arn:aws:iam::{OWN_ACCOUNT}:role/admin"
    with pytest.raises(NotSentError) as refusal:
        roles.session(RoleAssumption("acme", 3, own, TRUSTED.external_id))
    assert refusal.value.error.code == "role_not_assumable"
    assert "store the ARN of a role of your own AWS account" in refusal.value.error.hint
    with pytest.raises(NotSentError):
        roles.refuses_foreign_external_id(tenants.role(own))
    assert sts.calls == []


@pytest.mark.parametrize(
    ("code", "part_of_the_hint"),
    [("AccessDenied", "trust policy"), ("RegionDisabledException", "activate STS"), ("ValidationError", "store the ARN")],
)
def test_a_role_that_refuses_us_is_the_tenant_s_fault(roles: AssumedRoles, sts: Sts, code: str, part_of_the_hint: str) -> None:
    """By the trust policy, a region that the tenant disabled, or an invalid ARN: the hint says who must do what."""
    sts.failure = failed(code, "User: arn:aws:sts::111111111111:assumed-role/send/x is not authorized")
    with pytest.raises(NotSentError) as refusal:
        roles.session(TRUSTED)
    assert refusal.value.error.code == "role_not_assumable"
    assert refusal.value.error.hint.startswith("Tenant:")
    assert part_of_the_hint in refusal.value.error.hint


@pytest.mark.parametrize(
    "failure",
    [
        failed("Throttling"),
        failed("InternalFailure"),
        failed("ServiceUnavailable"),
        failed("ExpiredToken"),
        failed("InvalidClientTokenId"),
        failed("MalformedPolicyDocument"),
        denied(
            "User: arn:… is not authorized to perform: sts:AssumeRole because no identity-based policy allows the sts:AssumeRole action"
        ),
        denied("User: arn:… with an explicit deny in an identity-based policy"),
        ReadTimeoutError(endpoint_url="https://sts.eu-central-1.amazonaws.com/"),
        ConnectTimeoutError(endpoint_url="https://sts.eu-central-1.amazonaws.com/"),
    ],
    ids=lambda failure: type(failure).__name__ if not isinstance(failure, ClientError) else failure.response["Error"]["Code"],
)
def test_failures_of_sts_blame_no_tenant(roles: AssumedRoles, sts: Sts, failure: Exception) -> None:
    """Or of our own rights: mail waits, no tenant is suspended, and the next try calls STS again."""
    sts.failure = failure
    with pytest.raises(DependencyError):
        roles.session(TRUSTED)
    sts.failure = None
    assert roles.session(TRUSTED).access_key == "ASIA2"


# ── the confused deputy ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("asked_for", "refuses"), [(TRUSTED.external_id, True), (None, False)], ids=["asks for ours", "asks for none"])
def test_a_trust_policy_is_tried_with_a_foreign_external_id(roles: AssumedRoles, sts: Sts, asked_for: str | None, *, refuses: bool) -> None:
    """A role that any ExternalId can assume would let one tenant send as another."""
    sts.trust = {tenants.ROLE_ARN: asked_for}
    assert roles.refuses_foreign_external_id(tenants.role()) is refuses
    claims = [call.get("ExternalId") for call in sts.calls]
    assert TRUSTED.external_id not in claims


@pytest.mark.parametrize("let_in", ["without", "with any"])
def test_a_trust_policy_is_tried_without_an_external_id_too(roles: AssumedRoles, sts: Sts, let_in: str) -> None:
    """A condition with IfExists admits callers without one, a wildcard those with any."""

    def assume_role(**call: Any) -> dict[str, Any]:
        if ("ExternalId" in call) != (let_in == "with any"):
            raise denied()
        return Sts.assume_role(sts, **call)

    sts.trust = {tenants.ROLE_ARN: None}
    sts.assume_role = assume_role  # type: ignore[method-assign]
    assert roles.refuses_foreign_external_id(tenants.role()) is False


def test_a_probe_without_a_response_of_sts_proves_nothing(roles: AssumedRoles, sts: Sts) -> None:
    """Neither safe nor unsafe: the caller gets a DependencyError."""
    sts.failure = failed("Throttling")
    with pytest.raises(DependencyError):
        roles.refuses_foreign_external_id(tenants.role())


def test_sessions_are_in_no_repr_or_error(roles: AssumedRoles) -> None:
    """Neither contains the keys of STS."""
    keys = RoleCredentials(roles, TRUSTED)
    keys.current()
    assert "canary-session" not in f"{keys!r} {roles!r}"

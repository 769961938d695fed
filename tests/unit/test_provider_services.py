"""The provider API's services with fakes: storing, verifying and reporting."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from typing import Any
from urllib.parse import quote

import pytest

from mailer.domain import lifecycle
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError, RequestError, UnreadableError
from mailer.domain.events import provider_changed
from mailer.domain.lifecycle import SANDBOX_MAY_BE
from mailer.domain.moments import to_millis
from mailer.domain.onboarding import trust_policy
from mailer.domain.provider import Provider, ProviderStatus, Simulation, StoredConfig
from mailer.ports import AccountFacts
from mailer.services.providers import providers, verify
from mailer.services.providers.providers import (
    delete_provider,
    disable_provider,
    disclose,
    enable_provider,
    get_provider,
    onboard,
    put_config,
)
from mailer.services.providers.verify import VerifyFailedError, verify_provider
from support.fakes.ports import NOON, a_config, a_provider
from support.fakes.providers import KEY, ROLE, SECRET, SMTP, FakeConfigCipher, Scene, a_scene, with_config


def put(scene: Scene, body: Any = KEY, **changes: Any) -> Provider:
    return put_config("acme", with_config(body, **changes), scene.deps)


def a_scene_with(body: Any = KEY, **changes: Any) -> Scene:
    """Return a scene in which tenant acme has stored an unverified config."""
    scene = a_scene(allow_smtp=True)
    put(scene, body, **changes)
    return scene


def refused(call: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        call()
    return refusal.value


def failed_verify(scene: Scene, *, with_outcome: Outcome | None = None) -> ErrorInfo:
    scene.account.outcome = with_outcome or scene.account.outcome
    with pytest.raises(VerifyFailedError) as failure:
        verify_provider("acme", scene.deps)
    return failure.value.error


# -- store ---------------------------------------------------------------------------------------------------------------


def test_a_config_is_stored_encrypted() -> None:
    """The ciphertext is bound to tenant, provider and version; no secret is stored unencrypted."""
    row = put(a_scene(), configurationSet="news", maxSendRate=14)
    assert row.candidate is not None
    assert json.loads(FakeConfigCipher().decrypt("acme", "ses", 1, row.candidate.ciphertext))["secretAccessKey"] == SECRET
    assert row.candidate.credentials == {"type": "accessKey", "accessKeyId": "…MPLE"}
    assert (row.candidate.configuration_set, row.candidate.max_send_rate, row.candidate.region) == ("news", 14.0, "eu-west-1")
    assert SECRET not in repr(row)


def shown_credentials(scene: Scene) -> Mapping[str, str]:
    """Return the credentials that the API shows of the newest config."""
    return lifecycle.to_verify(disclose(scene.row, scene.deps)).credentials


def test_a_role_is_shown_with_the_tenants_external_id() -> None:
    """The ExternalId is the same for each config of the tenant; the paced account is in the ARN."""
    scene = a_scene()
    for _ in range(2):
        candidate = put(scene, ROLE).candidate
        assert candidate is not None
        assert candidate.account == "222222222222"
        assert shown_credentials(scene) == {"type": "role", "roleArn": ROLE["config"]["roleArn"], "externalId": "external-id-1"}


@pytest.mark.parametrize("failure", [DependencyError("KMS", "Decrypt"), NotSentError(ErrorInfo("config_unreadable", "x"))])
def test_a_role_that_cannot_be_decrypted_is_shown_without_its_name(failure: Exception) -> None:
    """With an outage of KMS, or a foreign ciphertext, an operator can still see and disable the provider."""
    scene = a_scene_with(ROLE)
    verify_provider("acme", scene.deps)

    def fail(*_: object) -> bytes:
        raise failure

    scene.deps.config_cipher.decrypt = fail  # type: ignore[method-assign]
    disabled = disclose(disable_provider("acme", scene.deps), scene.deps)
    assert (disabled.status, lifecycle.to_verify(disabled).credentials) == (ProviderStatus.DISABLED, {"type": "role"})
    reported = [arguments for name, arguments in scene.telemetry.entries if name == "failed"]
    assert reported == [("show role", "acme", failure)] * isinstance(failure, DependencyError)


def test_neither_arn_nor_external_id_is_in_the_row() -> None:
    """A reader of the table or its stream learns only the account of a role."""
    scene = a_scene_with(ROLE)
    scene.trust.is_correct = False
    failed_verify(scene)
    scene.trust.is_correct = True
    verify_provider("acme", scene.deps)
    put(scene, ROLE)
    rows = [row for _, row in scene.store.writes]
    assert all(row.candidate or row.active for row in rows)
    clear = [
        replace(row, active=without_ciphertext(row.active), candidate=without_ciphertext(row.candidate), encrypted_external_id=b"")
        for row in rows
    ]
    for secret in (ROLE["config"]["roleArn"], "external-id-1", "SendMail"):
        assert secret not in f"{clear} {[event.detail for _, new in scene.store.writes if (event := provider_changed('e', None, new))]}"
    assert {config.account for row in rows if (config := row.active or row.candidate)} == {"222222222222"}


def without_ciphertext(config: StoredConfig | None) -> StoredConfig | None:
    return config and replace(config, ciphertext=b"")


def test_ciphertexts_cannot_be_swapped_between_fields_or_tenants() -> None:
    """Each ciphertext is bound to its field and tenant."""
    scene = a_scene_with(ROLE)
    onboard("evil", scene.deps)
    stolen = scene.row.encrypted_external_id
    scene.store.rows["evil"] = replace(scene.store.rows["evil"], encrypted_external_id=stolen)
    with pytest.raises(NotSentError):
        onboard("evil", scene.deps)
    candidate = scene.row.candidate
    assert candidate is not None
    scene.set_row(encrypted_external_id=candidate.ciphertext)
    with pytest.raises(NotSentError):
        onboard("acme", scene.deps)


def test_each_tenant_has_its_own_external_id() -> None:
    """It is generated once per tenant, and survives DELETE."""
    scene = a_scene()
    ids = {tenant: onboard(tenant, scene.deps).external_id for tenant in ("acme", "evil")}
    assert len(set(ids.values())) == 2
    put(scene, ROLE)
    delete_provider("acme", scene.deps)
    put(scene, ROLE)
    assert shown_credentials(scene)["externalId"] == onboard("acme", scene.deps).external_id == ids["acme"]


def test_smtp_is_refused_outside_development_stacks() -> None:
    """The problem names the parameter, and nothing is stored."""
    scene = a_scene(allow_smtp=False)
    [problem] = refused(lambda: put(scene, SMTP)).problems
    assert problem.path == "provider"
    assert "AllowSmtp" in problem.problem
    assert scene.store.rows == {}
    assert put(a_scene(allow_smtp=True), SMTP).candidate is not None


def test_a_role_of_our_own_account_is_refused() -> None:
    """Otherwise a caller could get the rights of our own roles."""
    scene = a_scene()
    [problem] = refused(lambda: put(scene, ROLE, roleArn=f"arn:aws:iam::{scene.deps.platform.account}:role/Admin")).problems
    assert problem.path == "config.roleArn"


def test_a_role_of_another_partition_than_our_own_is_refused() -> None:
    """STS does not assume roles across partitions; the account can still be used with an access key."""
    scene = a_scene()
    elsewhere = {"roleArn": "arn:aws-us-gov:iam::222222222222:role/x", "region": "us-gov-west-1"}
    [problem] = refused(lambda: put(scene, ROLE, **elsewhere)).problems
    assert problem.path == "config.roleArn"
    assert "access key" in problem.problem
    assert put(scene, KEY, region="us-gov-west-1").candidate is not None


def test_an_oversized_body_is_refused_unparsed() -> None:
    """A config is small."""
    refusal = refused(lambda: put_config("acme", " " * (providers.MAX_BODY + 1), a_scene().deps))
    assert refusal.code == "invalid_request"


def test_a_lost_race_encrypts_again() -> None:
    """Two concurrent PUTs get two versions, each encrypted for its own; the later write wins."""
    scene = a_scene_with()

    def put_concurrently(_: Provider) -> None:
        scene.store.before_write = lambda _: None
        put(scene, fromName="Other")

    scene.store.before_write = put_concurrently
    row = put(scene, fromName="Mine")
    assert (row.versions, row.candidate and row.candidate.version, row.candidate and row.candidate.from_name) == (3, 3, "Mine")
    assert row.candidate is not None
    assert FakeConfigCipher().decrypt("acme", "ses", 3, row.candidate.ciphertext)


def test_endless_contention_is_too_many_requests() -> None:
    """A call that loses every race ends with an error instead of an endless loop."""
    scene = a_scene_with()
    scene.store.before_write = lambda _: scene.set_row()
    assert refused(lambda: put(scene)).code == "too_many_requests"


# -- verify --------------------------------------------------------------------------------------------------------------


def test_verify_sends_the_original_s_mail_to_the_sender_itself() -> None:
    """Subject and text are those of the original system; From and To are the config's own address."""
    scene = a_scene_with()
    verify_provider("acme", scene.deps)
    [mail] = scene.account.mails
    assert (mail.mail_from, mail.recipients) == ("billing@acme.example", ("billing@acme.example",))
    parsed = message_from_bytes(mail.mime, policy=policy.default)
    assert parsed["subject"] == "Leadmetrics — SES connection test"
    assert parsed.get_content().strip() == "This is a test email from Leadmetrics to verify your AWS SES configuration."
    assert [str(parsed[name]) for name in ("from", "to")] == ["Acme <billing@acme.example>", "billing@acme.example"]


def test_a_passing_verify_activates_and_warns_like_the_original() -> None:
    """The response has SES's message id, the sandbox and the warning."""
    scene = a_scene_with()
    verified = verify_provider("acme", scene.deps)
    assert verified.message_id == "message-1"
    assert (scene.row.status, scene.row.warnings, scene.row.sandbox) == (ProviderStatus.ACTIVE, (SANDBOX_MAY_BE,), "unknown")
    assert verified.row == scene.row


def test_each_verify_uses_credentials_of_its_own() -> None:
    """An earlier session with the role may have been revoked; its mail then tests a new one, as sending will from then on."""
    scene = a_scene_with()
    verify_provider("acme", scene.deps)
    scene.clock.advance(timedelta(seconds=1))
    verify_provider("acme", scene.deps)
    assert scene.provider_factory.since == [NOON, NOON + timedelta(seconds=1)]


def test_verify_stores_the_facts_of_the_account() -> None:
    """Sandbox, rate, quota and account are stored for pacing and for the caller."""
    scene = a_scene_with()
    scene.account.facts = AccountFacts(account="222222222222", sandbox=True, max_send_rate=1.0, quota_24h=200.0)
    verify_provider("acme", scene.deps)
    active = scene.row.active
    assert active is not None
    assert (scene.row.sandbox, active.account, active.quota_rate, active.quota_24h) == ("true", "222222222222", 1.0, 200.0)


def test_verify_reads_the_account_only_after_the_mail_was_accepted() -> None:
    """After a failed test mail there is no other call: a tenant may grant only ses:SendRawEmail."""
    scene = a_scene_with()
    failed_verify(scene, with_outcome=NotSent(ErrorInfo("credentials_denied", "denied")))
    assert scene.account.calls == 0


@pytest.mark.parametrize(
    ("code", "part_of_the_hint"),
    [
        ("credentials_invalid", "IAM console"),
        ("credentials_denied", "arn:aws:ses:eu-west-1:*:identity/billing@acme.example"),
        ("from_address_not_verified", "https://eu-west-1.console.aws.amazon.com/ses/home?region=eu-west-1#/identities"),
        ("account_paused", "#/reputation"),
        ("configuration_set_missing", "news"),
        ("mail_from_not_verified", "#/identities/acme.example"),
        ("throttled", "verify again"),
        ("daily_quota_exceeded", "verify again"),
    ],
)
def test_a_rejected_test_mail_has_a_remediation(code: str, part_of_the_hint: str) -> None:
    """The error has the remediation for the config; the candidate keeps it, and nothing becomes active."""
    scene = a_scene_with(configurationSet="news")
    error = failed_verify(scene, with_outcome=NotSent(ErrorInfo(code, "SES said no")))
    assert error.code == code
    assert part_of_the_hint in error.hint
    assert scene.row.status is ProviderStatus.UNVERIFIED
    assert scene.row.candidate is not None
    assert scene.row.candidate.error == error


def test_an_unknown_outcome_is_never_a_pass() -> None:
    """It is not known whether the test mail was sent; verify can be repeated."""
    scene = a_scene_with()
    error = failed_verify(scene, with_outcome=MaybeSent(ErrorInfo("outcome_unknown", "no answer")))
    assert error.code == "outcome_unknown"
    assert "verify again" in error.hint
    assert scene.row.status is ProviderStatus.UNVERIFIED
    scene.account.outcome = Sent("message-2")
    verify_provider("acme", scene.deps)
    assert scene.row.status is ProviderStatus.ACTIVE
    assert scene.row.active is not None
    assert scene.row.active.error is None


def test_a_failing_candidate_does_not_change_the_active_config() -> None:
    """A failed rotation causes no gap: mail is sent with the old key."""
    scene = a_scene_with()
    verify_provider("acme", scene.deps)
    before = scene.row.active
    put(scene, fromName="New")
    failed_verify(scene, with_outcome=NotSent(ErrorInfo("credentials_invalid", "no such key")))
    assert (scene.row.status, scene.row.active) == (ProviderStatus.ACTIVE, before)
    scene.account.outcome = Sent("message-2")
    verify_provider("acme", scene.deps)
    assert scene.row.active is not None
    assert (scene.row.active.version, scene.row.active.from_name, scene.row.candidate) == (2, "New", None)
    assert before is not None
    assert before.ciphertext not in (scene.row.active.ciphertext, b"")


def test_a_verify_promotes_only_what_it_tested() -> None:
    """A config that is stored during the test mail stays a candidate; the caller has to verify again."""
    scene = a_scene_with()
    send = scene.account.send

    def store_during_the_call(mail: Any, *, tags: Any) -> Outcome:
        put(scene, fromName="Newer")
        return send(mail, tags=tags)

    scene.account.send = store_during_the_call  # type: ignore[method-assign]
    assert refused(lambda: verify_provider("acme", scene.deps)).code == "provider_not_active"
    assert (scene.row.status, scene.row.active) == (ProviderStatus.UNVERIFIED, None)
    assert scene.row.candidate is not None
    assert scene.row.candidate.from_name == "Newer"


def test_a_provider_deleted_while_it_is_verified_stays_deleted() -> None:
    """A concurrent verify does not restore it."""
    scene = a_scene_with()
    send = scene.account.send

    def delete_during_the_call(mail: Any, *, tags: Any) -> Outcome:
        delete_provider("acme", scene.deps)
        return send(mail, tags=tags)

    scene.account.send = delete_during_the_call  # type: ignore[method-assign]
    assert refused(lambda: verify_provider("acme", scene.deps)).code == "not_found"
    assert scene.row.status is ProviderStatus.DELETED


def test_a_promotion_survives_other_writes_to_the_row() -> None:
    """A concurrently counted fault makes the promotion read again, without an error or a lost write."""
    scene = a_scene_with()
    verify_provider("acme", scene.deps)
    put(scene, fromName="New")

    def count_a_fault(_: Provider) -> None:
        scene.store.before_write = lambda _: None
        scene.set_row(faulty_requests=frozenset({"r1"}))

    scene.store.before_write = count_a_fault
    verify_provider("acme", scene.deps)
    assert scene.row.active is not None
    assert (scene.row.active.version, scene.row.faulty_requests) == (2, frozenset())


def test_a_config_that_cannot_be_decrypted_fails_the_verify() -> None:
    """A damaged or swapped row is `config_unreadable`, and nothing is sent."""
    scene = a_scene_with()
    scene.set_row(candidate=a_config(ciphertext=FakeConfigCipher().encrypt("evil", "ses", 1, b"{}")))
    assert failed_verify(scene).code == "config_unreadable"
    assert scene.account.mails == []


def test_a_role_of_a_later_version_is_neither_tested_nor_noted_as_faulty() -> None:
    """After a roll-back its new field is not known here; the row is still shown."""
    scene, cipher = a_scene_with(ROLE), FakeConfigCipher()
    candidate = lifecycle.to_verify(scene.row)
    later = {**json.loads(cipher.decrypt("acme", "ses", 1, candidate.ciphertext)), "newField": True}
    scene.set_row(candidate=replace(candidate, ciphertext=cipher.encrypt("acme", "ses", 1, json.dumps(later).encode())))
    with pytest.raises(UnreadableError):
        verify_provider("acme", scene.deps)
    assert (lifecycle.to_verify(scene.row).error, scene.account.mails) == (None, [])
    assert shown_credentials(scene) == {"type": "role"}


def test_an_outage_of_ours_is_not_the_config_s_error() -> None:
    """With an outage of KMS the caller gets that error, and the row none."""
    scene = a_scene_with()
    scene.provider_factory.refusal = DependencyError("KMS", "Decrypt")
    with pytest.raises(DependencyError):
        verify_provider("acme", scene.deps)
    assert scene.row.candidate is not None
    assert scene.row.candidate.error is None


def test_a_slow_decryption_sends_nothing() -> None:
    """A call that could not end within API Gateway's timeout is not started."""
    scene = a_scene_with()
    decrypt_config = scene.provider_factory.create

    def slowly(tenant_id: str, config: Any, since: datetime | None = None) -> Any:
        scene.clock.advance(verify.SEND_BY + timedelta(seconds=1))
        return decrypt_config(tenant_id, config, since)

    scene.provider_factory.create = slowly  # type: ignore[method-assign]
    with pytest.raises(DependencyError):
        verify_provider("acme", scene.deps)
    assert scene.account.mails == []


def test_after_a_slow_test_mail_the_account_is_not_read() -> None:
    """Verify then passes without knowing the sandbox."""
    scene = a_scene_with()
    send = scene.account.send

    def slowly(mail: Any, *, tags: Any) -> Outcome:
        scene.clock.advance(verify.ASK_BY + timedelta(seconds=1))
        return send(mail, tags=tags)

    scene.account.send = slowly  # type: ignore[method-assign]
    scene.account.facts = AccountFacts(sandbox=False)
    assert verify_provider("acme", scene.deps).row.sandbox == "unknown"
    assert scene.account.calls == 0


# -- verify and feedback -------------------------------------------------------------------------------------------------


def simulate(scene: Scene) -> verify.Verified:
    return verify_provider("acme", scene.deps, simulate=True)


def test_a_test_mail_with_events_is_tagged_with_its_version() -> None:
    """Its tags have tenant and version instead of a request."""
    scene = a_scene_with(configurationSet="mail-acme")
    verify_provider("acme", scene.deps)
    assert scene.account.tags == [{"tenantmail-tenant": "acme", "tenantmail-verify": "1"}]


def test_a_test_mail_without_events_has_no_tags() -> None:
    """SES rejects tags without a configuration set."""
    scene = a_scene_with()
    verify_provider("acme", scene.deps)
    assert scene.account.tags == [{}]


def test_a_simulation_is_recorded_before_it_mails_both_addresses() -> None:
    """Its mails are tagged with it, so their events find it on the active version."""
    scene = a_scene_with(configurationSet="mail-acme")
    recorded: list[Any] = []
    send = scene.account.send

    def read_row_first(mail: Any, *, tags: Any) -> Outcome:
        recorded.append(scene.row.active and scene.row.active.simulation)
        return send(mail, tags=tags)

    scene.account.send = read_row_first  # type: ignore[method-assign]
    verified = simulate(scene)
    assert recorded == [None, Simulation(started_at=NOON), Simulation(started_at=NOON)]
    assert [mail.recipients for mail in scene.account.mails[1:]] == [(address,) for address in verify.SIMULATOR.values()]
    tags = {"tenantmail-tenant": "acme", "tenantmail-verify": "1", "tenantmail-simulation": str(to_millis(NOON))}
    assert scene.account.tags[1:] == [tags, tags]
    assert verified.simulated == {"bounce": Sent("message-1"), "complaint": Sent("message-1")}


def test_a_simulation_retries_a_throttled_account() -> None:
    """A sandboxed account sends one mail a second, and the simulator counts towards that rate."""
    scene = a_scene_with(configurationSet="mail-acme")
    throttled = NotSent(ErrorInfo("throttled", "too fast"))
    answers = iter([Sent("test"), throttled, Sent("bounce"), throttled, throttled, Sent("complaint")])
    scene.account.send = lambda *_, **__: next(answers)  # type: ignore[method-assign]
    assert simulate(scene).simulated == {"bounce": Sent("bounce"), "complaint": Sent("complaint")}
    assert scene.clock.now() == NOON + 3 * verify.PAUSE


@pytest.mark.parametrize("outcome", [NotSent(ErrorInfo("credentials_denied", "no")), MaybeSent(ErrorInfo("outcome_unknown", "?"))])
def test_a_failed_mail_to_the_simulator_is_not_retried(outcome: Outcome) -> None:
    """The config has passed; the response has the mail's outcome."""
    scene = a_scene_with(configurationSet="mail-acme")
    answers = iter([Sent("test"), outcome, Sent("complaint")])
    scene.account.send = lambda *_, **__: next(answers)  # type: ignore[method-assign]
    verified = simulate(scene)
    bounce = verified.simulated["bounce"]
    assert isinstance(bounce, NotSent | MaybeSent)
    assert isinstance(outcome, NotSent | MaybeSent)
    assert bounce.error.code == outcome.error.code
    assert verified.simulated["complaint"] == Sent("complaint")
    assert verified.row.status is ProviderStatus.ACTIVE


@pytest.mark.parametrize(
    "outcome",
    [
        NotSent(ErrorInfo("throttled", "too fast")),
        NotSent(ErrorInfo("daily_quota_exceeded", "used up")),
        MaybeSent(ErrorInfo("outcome_unknown", "?")),
    ],
)
def test_a_failed_mail_to_the_simulator_is_not_said_to_go_out(outcome: NotSent | MaybeSent) -> None:
    """Nothing sends it again, and it has no record to resolve."""
    scene = a_scene_with(configurationSet="mail-acme")
    answers = iter([Sent("test")])
    scene.account.send = lambda *_, **__: next(answers, outcome)  # type: ignore[method-assign]
    for simulated in simulate(scene).simulated.values():
        assert isinstance(simulated, NotSent | MaybeSent)
        assert "verify again" in simulated.error.hint


def test_a_simulation_keeps_within_api_gateways_time() -> None:
    """No mail is started that SES might accept only after API Gateway's timeout."""
    scene = a_scene_with(configurationSet="mail-acme")
    send = scene.account.send

    def slowly(mail: Any, *, tags: Any) -> Outcome:
        scene.clock.advance(timedelta(seconds=7))
        return send(mail, tags=tags)

    scene.account.send = slowly  # type: ignore[method-assign]
    simulated = simulate(scene).simulated
    assert simulated["bounce"] == Sent("message-1")
    assert isinstance(simulated["complaint"], NotSent)
    assert len(scene.account.mails) == 2


def test_a_throttled_account_does_not_delay_the_response() -> None:
    """The retries end in time."""
    scene = a_scene_with(configurationSet="mail-acme")
    throttled = NotSent(ErrorInfo("throttled", "too fast"))
    answers = iter([Sent("test")])
    scene.account.send = lambda *_, **__: next(answers, throttled)  # type: ignore[method-assign]
    assert {outcome.error.code for outcome in simulate(scene).simulated.values() if isinstance(outcome, NotSent)} == {"throttled"}
    assert scene.clock.now() <= NOON + verify.SIMULATE_BY + verify.PAUSE


@pytest.mark.parametrize("body", [KEY, SMTP])
def test_a_simulation_without_events_is_refused(body: Any) -> None:
    """It is rejected before any mail is sent."""
    scene = a_scene_with(body)
    assert refused(lambda: simulate(scene)).problems[0].path == "simulate"
    assert scene.account.mails == []


def test_feedback_marks_belong_to_a_config() -> None:
    """A candidate keeps its marks when it is promoted; a new config has none."""
    scene = a_scene_with(configurationSet="mail-acme")
    verify_provider("acme", scene.deps)
    put(scene, configurationSet="mail-acme")
    candidate = scene.row.candidate
    assert candidate is not None
    assert candidate.feedback_at is None
    marked = replace(candidate, feedback_at=NOON, simulation=Simulation(started_at=NOON))
    scene.set_row(candidate=marked)
    verify_provider("acme", scene.deps)
    assert scene.row.active is not None
    assert (scene.row.active.version, scene.row.active.feedback_at) == (2, NOON)
    assert scene.row.active.simulation == Simulation(started_at=NOON)


# -- roles ---------------------------------------------------------------------------------------------------------------


def test_a_role_with_an_open_trust_policy_is_not_activated() -> None:
    """A trust policy without our ExternalId would let any tenant send as this one (confused deputy)."""
    scene = a_scene_with(ROLE)
    scene.trust.is_correct = False
    error = failed_verify(scene)
    assert error.code == "role_not_assumable"
    policy = json.loads(error.hint[error.hint.index("{") :])
    assert policy == trust_policy(scene.deps.platform, "external-id-1")
    stored = disclose(scene.row, scene.deps).candidate
    assert stored is not None
    assert stored.error == error
    assert (scene.account.mails, scene.row.status) == ([], ProviderStatus.UNVERIFIED)


def test_every_verify_probes_the_trust_policy() -> None:
    """A trust policy that was opened later is found by the next verify; keys are not probed."""
    scene = a_scene_with(ROLE)
    for _ in range(2):
        verify_provider("acme", scene.deps)
    assert [role.role_arn for role in scene.trust.tried] == [ROLE["config"]["roleArn"]] * 2
    key = a_scene_with(KEY)
    verify_provider("acme", key.deps)
    assert key.trust.tried == []


def test_the_hint_of_an_unassumable_role_has_the_trust_policy() -> None:
    """The hint has the JSON."""
    scene = a_scene_with(ROLE)
    scene.provider_factory.refusal = NotSentError(ErrorInfo("role_not_assumable", "the trust policy does not let us in"))
    assert '"sts:ExternalId": "external-id-1"' in failed_verify(scene).hint


# -- disable, enable, delete, onboarding ---------------------------------------------------------------------------------


def published(scene: Scene) -> list[tuple[Any, ...]]:
    """Return the published events of the writes: change, status, version and error code."""
    events = [provider_changed("e", old, new) for old, new in scene.store.writes]
    details = [event.detail for event in events if event]
    return [(d["change"], d["status"], d["configVersion"], d["error"] and d["error"]["code"]) for d in details]


def test_every_change_is_published_once() -> None:
    """Each change is published with the status after it; a call without a change is not."""
    scene = a_scene()
    put(scene)
    for _ in range(2):
        scene.clock.advance(timedelta(seconds=1))
        failed_verify(scene, with_outcome=NotSent(ErrorInfo("credentials_denied", "denied")))
    scene.account.outcome = Sent("m")
    verify_provider("acme", scene.deps)
    for _ in range(2):
        disable_provider("acme", scene.deps)
    for _ in range(2):
        enable_provider("acme", scene.deps)
    onboard("acme", scene.deps)
    for _ in range(2):
        delete_provider("acme", scene.deps)
    assert published(scene) == [
        ("stored", "unverified", 1, None),
        ("verifyFailed", "unverified", 1, "credentials_denied"),
        ("verifyFailed", "unverified", 1, "credentials_denied"),
        ("verified", "active", 1, None),
        ("disabled", "disabled", 1, None),
        ("enabled", "active", 1, None),
        ("deleted", "deleted", 1, None),
    ]


def test_delete_is_idempotent_and_leaves_no_ciphertext() -> None:
    """Deleting a provider that does not exist is not an error."""
    scene = a_scene_with()
    delete_provider("acme", scene.deps)
    assert (scene.row.active, scene.row.candidate) == (None, None)
    assert refused(lambda: get_provider("acme", scene.deps)).code == "not_found"
    delete_provider("acme", scene.deps)
    delete_provider("nobody", scene.deps)
    assert "nobody" not in scene.store.rows


def test_versions_are_never_reused() -> None:
    """Five configs have five versions, also after DELETE and after replaced candidates."""
    scene = a_scene()
    versions = []
    for number in range(5):
        candidate = put(scene).candidate
        assert candidate is not None
        versions.append(candidate.version)
        if number % 2:
            delete_provider("acme", scene.deps)
    assert versions == [1, 2, 3, 4, 5]


def test_enabling_a_suspended_provider_needs_a_verify() -> None:
    """The error says so."""
    scene = a_scene(a_provider(status=ProviderStatus.SUSPENDED, revision=1))
    refusal = refused(lambda: enable_provider("acme", scene.deps))
    assert refusal.code == "provider_not_active"
    assert "verify" in str(refusal)


def test_a_foreign_external_id_has_a_hint_of_its_own() -> None:
    """The code's hint is to store the config again, which is what fails."""
    scene = a_scene(a_provider(encrypted_external_id=FakeConfigCipher().encrypt("other", "external-id", 0, b"x"), revision=1))
    for call in (lambda: onboard("acme", scene.deps), lambda: put(scene, ROLE)):
        with pytest.raises(NotSentError) as refusal:
            call()
        assert refusal.value.error.code == "config_unreadable"
        assert "restore it" in refusal.value.error.hint


def test_onboarding_works_before_a_config_is_stored() -> None:
    """A tenant creates its role first: the ExternalId is the same as later in its config."""
    scene = a_scene()
    onboarding = onboard("acme", scene.deps)
    assert refused(lambda: get_provider("acme", scene.deps)).code == "not_found"
    repeated = onboard("acme", scene.deps)
    assert (repeated.external_id, repeated.template) == (onboarding.external_id, onboarding.template)
    put(scene, ROLE)
    assert shown_credentials(scene)["externalId"] == onboarding.external_id


def test_the_published_template_has_no_tenant_data() -> None:
    """The tenant's own template has its ExternalId; the one in the bucket is for all tenants, and the link has the parameters."""
    scene = a_scene()
    onboarding = onboard("acme", scene.deps)
    onboard("globex", scene.deps)
    first, second = scene.deps.templates.published  # type: ignore[attr-defined]
    assert first == second
    assert onboarding.external_id not in first
    assert onboarding.external_id in onboarding.template
    assert quote(f"param_ExternalId={onboarding.external_id}", safe="=") in onboarding.quick_create_link
    assert quote("https://bucket.example/1.json", safe="") in onboarding.quick_create_link


def test_the_link_opens_the_region_that_the_tenant_sends_from() -> None:
    """Events are on the bus of that region; before a config is stored it is our own region."""
    assert onboard("acme", a_scene().deps).quick_create_link.startswith("https://eu-west-1.console")
    scene = a_scene()
    put(scene, region="ap-south-1")
    assert onboard("acme", scene.deps).quick_create_link.startswith("https://ap-south-1.console")

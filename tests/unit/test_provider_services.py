"""The provider API's services over fakes: what is stored, what a verify proves, and what is reported."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from typing import Any
from urllib.parse import quote

import pytest

from mailer.domain import lifecycle
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError, RequestError
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
    """Tenant acme has stored a config that it has not verified."""
    scene = a_scene(allow_smtp=True)
    put(scene, body, **changes)
    return scene


def refused(act: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        act()
    return refusal.value


def failed_verify(scene: Scene, *, with_outcome: Outcome | None = None) -> ErrorInfo:
    scene.account.outcome = with_outcome or scene.account.outcome
    with pytest.raises(VerifyFailedError) as failure:
        verify_provider("acme", scene.deps)
    return failure.value.error


# -- store ---------------------------------------------------------------------------------------------------------------


def test_stores_a_config_sealed() -> None:
    """The row holds the ciphertext, bound to tenant, provider and version, and in clear nothing that is secret."""
    row = put(a_scene(), configurationSet="news", maxSendRate=14)
    assert row.candidate is not None
    assert json.loads(FakeConfigCipher().decrypt("acme", "ses", 1, row.candidate.ciphertext))["secretAccessKey"] == SECRET
    assert row.candidate.credentials == {"type": "accessKey", "accessKeyId": "…MPLE"}
    assert (row.candidate.configuration_set, row.candidate.max_send_rate, row.candidate.region) == ("news", 14.0, "eu-west-1")
    assert SECRET not in repr(row)


def shown_credentials(scene: Scene) -> Mapping[str, str]:
    """What the API shows of the newest config."""
    return lifecycle.to_verify(disclose(scene.row, scene.deps)).credentials


def test_a_role_is_shown_with_the_tenants_external_id() -> None:
    """The ExternalId is ours, and the same with each config of the tenant; the ARN tells the account that is paced."""
    scene = a_scene()
    for _ in range(2):
        candidate = put(scene, ROLE).candidate
        assert candidate is not None
        assert candidate.account == "222222222222"
        assert shown_credentials(scene) == {"type": "role", "roleArn": ROLE["config"]["roleArn"], "externalId": "external-id-1"}


@pytest.mark.parametrize("failure", [DependencyError("KMS", "Decrypt"), NotSentError(ErrorInfo("config_unreadable", "x"))])
def test_a_role_that_cannot_be_opened_is_shown_without_its_name(failure: Exception) -> None:
    """With KMS down, or a ciphertext that is not this tenant's, an operator still sees the provider, and can stop it."""
    scene = a_scene_with(ROLE)
    verify_provider("acme", scene.deps)

    def fail(*_: object) -> bytes:
        raise failure

    scene.deps.config_cipher.decrypt = fail  # type: ignore[method-assign]
    stopped = disclose(disable_provider("acme", scene.deps), scene.deps)
    assert (stopped.status, lifecycle.to_verify(stopped).credentials) == (ProviderStatus.DISABLED, {"type": "role"})
    noted = [arguments for name, arguments in scene.telemetry.entries if name == "failed"]
    assert noted == [("show role", "acme", failure)] * isinstance(failure, DependencyError)


def test_neither_arn_nor_external_id_stands_in_the_row() -> None:
    """Whoever may read the table, or its stream, learns no more of a role than the account that it is of."""
    scene = a_scene_with(ROLE)
    scene.trust.is_correct = False
    failed_verify(scene)
    scene.trust.is_correct = True
    verify_provider("acme", scene.deps)
    put(scene, ROLE)
    rows = [row for _, row in scene.store.writes]
    assert all(row.candidate or row.active for row in rows)
    clear = [replace(row, active=bare(row.active), candidate=bare(row.candidate), encrypted_external_id=b"") for row in rows]
    for secret in (ROLE["config"]["roleArn"], "external-id-1", "SendMail"):
        assert secret not in f"{clear} {[event.detail for _, new in scene.store.writes if (event := provider_changed('e', None, new))]}"
    assert {config.account for row in rows if (config := row.active or row.candidate)} == {"222222222222"}


def bare(config: StoredConfig | None) -> StoredConfig | None:
    return config and replace(config, ciphertext=b"")


def test_an_external_id_does_not_open_as_a_config_nor_in_another_tenants_row() -> None:
    """Each ciphertext is bound to what it is: to swap them in the table opens nothing."""
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


def test_each_tenant_has_an_external_id_of_its_own() -> None:
    """It is made once for a tenant, and survives DELETE."""
    scene = a_scene()
    ids = {tenant: onboard(tenant, scene.deps).external_id for tenant in ("acme", "evil")}
    assert len(set(ids.values())) == 2
    put(scene, ROLE)
    delete_provider("acme", scene.deps)
    put(scene, ROLE)
    assert shown_credentials(scene)["externalId"] == onboard("acme", scene.deps).external_id == ids["acme"]


def test_smtp_is_refused_outside_of_development_stacks() -> None:
    """A plain text says why, and nothing is stored."""
    scene = a_scene(allow_smtp=False)
    [problem] = refused(lambda: put(scene, SMTP)).problems
    assert problem.path == "provider"
    assert "AllowSmtp" in problem.problem
    assert scene.store.rows == {}
    assert put(a_scene(allow_smtp=True), SMTP).candidate is not None


def test_a_role_of_our_own_account_is_refused() -> None:
    """Nobody may have us become one of ourselves."""
    scene = a_scene()
    [problem] = refused(lambda: put(scene, ROLE, roleArn=f"arn:aws:iam::{scene.deps.platform.account}:role/Admin")).problems
    assert problem.path == "config.roleArn"


def test_a_role_of_another_partition_than_ours_is_refused() -> None:
    """STS assumes no role across partitions; the account can still be used by an access key."""
    scene = a_scene()
    elsewhere = {"roleArn": "arn:aws-us-gov:iam::222222222222:role/x", "region": "us-gov-west-1"}
    [problem] = refused(lambda: put(scene, ROLE, **elsewhere)).problems
    assert problem.path == "config.roleArn"
    assert "access key" in problem.problem
    assert put(scene, KEY, region="us-gov-west-1").candidate is not None


def test_an_oversized_body_is_refused_unread() -> None:
    """A config is small; what is not is no config."""
    refusal = refused(lambda: put_config("acme", " " * (providers.MAX_BODY + 1), a_scene().deps))
    assert refusal.code == "invalid_request"


def test_a_lost_race_seals_anew() -> None:
    """Two PUTs at once get two versions, each sealed for its own; the later write stands."""
    scene = a_scene_with()

    def another_put_first(_: Provider) -> None:
        scene.store.before_write = lambda _: None
        put(scene, fromName="Other")

    scene.store.before_write = another_put_first
    row = put(scene, fromName="Mine")
    assert (row.versions, row.candidate and row.candidate.version, row.candidate and row.candidate.from_name) == (3, 3, "Mine")
    assert row.candidate is not None
    assert FakeConfigCipher().decrypt("acme", "ses", 3, row.candidate.ciphertext)


def test_a_row_that_never_rests_is_too_many_requests() -> None:
    """A caller that loses every race is told to come again; it does not spin for ever."""
    scene = a_scene_with()
    scene.store.before_write = lambda _: scene.set_row()
    assert refused(lambda: put(scene)).code == "too_many_requests"


# -- verify --------------------------------------------------------------------------------------------------------------


def test_verify_sends_the_originals_mail_to_the_sender_itself() -> None:
    """Subject and text are fixed by the system that this one replaces; From and To are the config's own address."""
    scene = a_scene_with()
    verify_provider("acme", scene.deps)
    [mail] = scene.account.mails
    assert (mail.mail_from, mail.recipients) == ("billing@acme.example", ("billing@acme.example",))
    parsed = message_from_bytes(mail.mime, policy=policy.default)
    assert parsed["subject"] == "Leadmetrics — SES connection test"
    assert parsed.get_content().strip() == "This is a test email from Leadmetrics to verify your AWS SES configuration."
    assert [str(parsed[name]) for name in ("from", "to")] == ["Acme <billing@acme.example>", "billing@acme.example"]


def test_a_passing_verify_activates_and_warns_as_the_original_did() -> None:
    """The answer has SES's message id, the sandbox and the warning."""
    scene = a_scene_with()
    verified = verify_provider("acme", scene.deps)
    assert verified.message_id == "message-1"
    assert (scene.row.status, scene.row.warnings, scene.row.sandbox) == (ProviderStatus.ACTIVE, (SANDBOX_MAY_BE,), "unknown")
    assert verified.row == scene.row


def test_verify_learns_what_the_account_tells() -> None:
    """Sandbox, rate, quota and account are kept for pacing and for the caller."""
    scene = a_scene_with()
    scene.account.facts = AccountFacts(account="222222222222", sandbox=True, max_send_rate=1.0, quota_24h=200.0)
    verify_provider("acme", scene.deps)
    active = scene.row.active
    assert active is not None
    assert (scene.row.sandbox, active.account, active.quota_rate, active.quota_24h) == ("true", "222222222222", 1.0, 200.0)


def test_verify_asks_the_account_only_after_the_mail_was_accepted() -> None:
    """A config that does not pass is asked nothing: a tenant grants no right beyond ses:SendRawEmail."""
    scene = a_scene_with()
    failed_verify(scene, with_outcome=NotSent(ErrorInfo("credentials_denied", "denied")))
    assert scene.account.calls == 0


@pytest.mark.parametrize(
    ("code", "who"),
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
def test_a_refused_test_mail_says_who_must_do_what(code: str, who: str) -> None:
    """The error has the advice that fits the config; the candidate keeps it, and nothing becomes active."""
    scene = a_scene_with(configurationSet="news")
    error = failed_verify(scene, with_outcome=NotSent(ErrorInfo(code, "SES said no")))
    assert error.code == code
    assert who in error.hint
    assert scene.row.status is ProviderStatus.UNVERIFIED
    assert scene.row.candidate is not None
    assert scene.row.candidate.error == error


def test_an_unknown_outcome_is_never_a_pass() -> None:
    """Nobody knows whether the test mail went out: try again; a second one does no harm."""
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


def test_a_failing_candidate_leaves_the_active_config_untouched() -> None:
    """Rotation goes wrong without a gap: mail goes on with the old key."""
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
    """A config that is stored while the test mail is under way stays a candidate; the caller is told to verify again."""
    scene = a_scene_with()
    send = scene.account.send

    def store_meanwhile(mail: Any, *, tags: Any) -> Outcome:
        put(scene, fromName="Newer")
        return send(mail, tags=tags)

    scene.account.send = store_meanwhile  # type: ignore[method-assign]
    assert refused(lambda: verify_provider("acme", scene.deps)).code == "provider_not_active"
    assert (scene.row.status, scene.row.active) == (ProviderStatus.UNVERIFIED, None)
    assert scene.row.candidate is not None
    assert scene.row.candidate.from_name == "Newer"


def test_a_provider_deleted_while_it_is_verified_stays_deleted() -> None:
    """A verify that was under way brings nothing back."""
    scene = a_scene_with()
    send = scene.account.send

    def delete_meanwhile(mail: Any, *, tags: Any) -> Outcome:
        delete_provider("acme", scene.deps)
        return send(mail, tags=tags)

    scene.account.send = delete_meanwhile  # type: ignore[method-assign]
    assert refused(lambda: verify_provider("acme", scene.deps)).code == "not_found"
    assert scene.row.status is ProviderStatus.DELETED


def test_a_promotion_survives_other_writes_to_the_row() -> None:
    """A fault counted in between makes the promotion read again, not fail and not overwrite."""
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


def test_a_config_that_cannot_be_opened_fails_the_verify() -> None:
    """A row that was damaged or swapped is `config_unreadable`, and nothing is sent."""
    scene = a_scene_with()
    scene.set_row(candidate=a_config(ciphertext=FakeConfigCipher().encrypt("evil", "ses", 1, b"{}")))
    assert failed_verify(scene).code == "config_unreadable"
    assert scene.account.mails == []


def test_an_outage_of_ours_is_no_verdict() -> None:
    """KMS being down says nothing about the config: the caller gets the outage, and the row no error."""
    scene = a_scene_with()
    scene.provider_factory.refusal = DependencyError("KMS", "Decrypt")
    with pytest.raises(DependencyError):
        verify_provider("acme", scene.deps)
    assert scene.row.candidate is not None
    assert scene.row.candidate.error is None


def test_a_slow_opening_sends_nothing() -> None:
    """What could not be answered within API Gateway's time is not begun."""
    scene = a_scene_with()
    decrypt_config = scene.provider_factory.create

    def slowly(tenant_id: str, config: Any) -> Any:
        scene.clock.advance(verify.SEND_BY + timedelta(seconds=1))
        return decrypt_config(tenant_id, config)

    scene.provider_factory.create = slowly  # type: ignore[method-assign]
    with pytest.raises(DependencyError):
        verify_provider("acme", scene.deps)
    assert scene.account.mails == []


def test_a_slow_account_is_asked_nothing() -> None:
    """With SES slow, the verify passes without knowing the sandbox."""
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


def test_a_test_mail_that_ses_reports_says_whose_config_it_tests() -> None:
    """Its tags name tenant and version: no request is behind it."""
    scene = a_scene_with(configurationSet="mail-acme")
    verify_provider("acme", scene.deps)
    assert scene.account.tags == [{"tenantmail-tenant": "acme", "tenantmail-verify": "1"}]


def test_a_test_mail_that_ses_does_not_report_has_no_tags() -> None:
    """SES takes none without a configuration set."""
    scene = a_scene_with()
    verify_provider("acme", scene.deps)
    assert scene.account.tags == [{}]


def test_a_simulation_mails_both_addresses_once_the_row_knows_of_it() -> None:
    """Its mails are tagged with it; whatever comes back finds it on the active version."""
    scene = a_scene_with(configurationSet="mail-acme")
    begun: list[Any] = []
    send = scene.account.send

    def look_first(mail: Any, *, tags: Any) -> Outcome:
        begun.append(scene.row.active and scene.row.active.simulation)
        return send(mail, tags=tags)

    scene.account.send = look_first  # type: ignore[method-assign]
    verified = simulate(scene)
    assert begun == [None, Simulation(started_at=NOON), Simulation(started_at=NOON)]
    assert [mail.recipients for mail in scene.account.mails[1:]] == [(address,) for address in verify.SIMULATOR.values()]
    tags = {"tenantmail-tenant": "acme", "tenantmail-verify": "1", "tenantmail-simulation": str(to_millis(NOON))}
    assert scene.account.tags[1:] == [tags, tags]
    assert verified.simulated == {"bounce": Sent("message-1"), "complaint": Sent("message-1")}


def test_a_simulation_waits_for_an_account_that_sends_one_mail_a_second() -> None:
    """As every account in the sandbox: the simulator counts towards its rate."""
    scene = a_scene_with(configurationSet="mail-acme")
    throttled = NotSent(ErrorInfo("throttled", "too fast"))
    answers = iter([Sent("test"), throttled, Sent("bounce"), throttled, throttled, Sent("complaint")])
    scene.account.send = lambda *_, **__: next(answers)  # type: ignore[method-assign]
    assert simulate(scene).simulated == {"bounce": Sent("bounce"), "complaint": Sent("complaint")}
    assert scene.clock.now() == NOON + 3 * verify.PAUSE


@pytest.mark.parametrize("outcome", [NotSent(ErrorInfo("credentials_denied", "no")), MaybeSent(ErrorInfo("outcome_unknown", "?"))])
def test_a_mail_to_the_simulator_that_fails_is_not_sent_again(outcome: Outcome) -> None:
    """The config has passed; the answer says what became of the mail."""
    scene = a_scene_with(configurationSet="mail-acme")
    answers = iter([Sent("test"), outcome, Sent("complaint")])
    scene.account.send = lambda *_, **__: next(answers)  # type: ignore[method-assign]
    verified = simulate(scene)
    assert verified.simulated == {"bounce": outcome, "complaint": Sent("complaint")}
    assert verified.row.status is ProviderStatus.ACTIVE


def test_a_simulation_keeps_within_api_gateways_time() -> None:
    """No mail is begun that SES might accept only after the caller has been given up."""
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


def test_a_throttled_account_does_not_hold_up_the_answer() -> None:
    """One that is never let through is given up in time."""
    scene = a_scene_with(configurationSet="mail-acme")
    throttled = NotSent(ErrorInfo("throttled", "too fast"))
    answers = iter([Sent("test")])
    scene.account.send = lambda *_, **__: next(answers, throttled)  # type: ignore[method-assign]
    assert {outcome.error.code for outcome in simulate(scene).simulated.values() if isinstance(outcome, NotSent)} == {"throttled"}
    assert scene.clock.now() <= NOON + verify.SIMULATE_BY + verify.PAUSE


@pytest.mark.parametrize("body", [KEY, SMTP])
def test_nothing_is_simulated_where_ses_reports_nothing(body: Any) -> None:
    """The caller is told before any mail goes out."""
    scene = a_scene_with(body)
    assert refused(lambda: simulate(scene)).problems[0].path == "simulate"
    assert scene.account.mails == []


def test_what_is_known_of_feedback_goes_with_the_config() -> None:
    """A candidate that was heard of stays so as it is promoted; a new config begins anew."""
    scene = a_scene_with(configurationSet="mail-acme")
    verify_provider("acme", scene.deps)
    put(scene, configurationSet="mail-acme")
    candidate = scene.row.candidate
    assert candidate is not None
    assert candidate.feedback_at is None
    heard = replace(candidate, feedback_at=NOON, simulation=Simulation(started_at=NOON))
    scene.set_row(candidate=heard)
    verify_provider("acme", scene.deps)
    assert scene.row.active is not None
    assert (scene.row.active.version, scene.row.active.feedback_at) == (2, NOON)
    assert scene.row.active.simulation == Simulation(started_at=NOON)


# -- roles ---------------------------------------------------------------------------------------------------------------


def test_a_role_that_lets_strangers_in_is_not_activated() -> None:
    """The confused deputy: a trust policy without our ExternalId would let any tenant send as this one."""
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


def test_a_role_is_tried_with_every_verify() -> None:
    """A trust policy that was opened later is found by the next verify; keys are not tried at all."""
    scene = a_scene_with(ROLE)
    for _ in range(2):
        verify_provider("acme", scene.deps)
    assert [role.role_arn for role in scene.trust.tried] == [ROLE["config"]["roleArn"]] * 2
    key = a_scene_with(KEY)
    verify_provider("acme", key.deps)
    assert key.trust.tried == []


def test_a_role_that_cannot_be_assumed_gets_the_trust_policy_to_paste() -> None:
    """The hint is the very JSON."""
    scene = a_scene_with(ROLE)
    scene.provider_factory.refusal = NotSentError(ErrorInfo("role_not_assumable", "the trust policy does not let us in"))
    assert '"sts:ExternalId": "external-id-1"' in failed_verify(scene).hint


# -- disable, enable, delete, onboarding -----------------------------------------------------------------------------------


def told(scene: Scene) -> list[tuple[Any, ...]]:
    """Return what other systems hear of the writes: the change, the status after it, whose version, and why."""
    events = [provider_changed("e", old, new) for old, new in scene.store.writes]
    details = [event.detail for event in events if event]
    return [(d["change"], d["status"], d["configVersion"], d["error"] and d["error"]["code"]) for d in details]


def test_every_change_is_told_once() -> None:
    """Other systems hear of each change with the status after it; what changes nothing is no news."""
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
    assert told(scene) == [
        ("stored", "unverified", 1, None),
        ("verifyFailed", "unverified", 1, "credentials_denied"),
        ("verifyFailed", "unverified", 1, "credentials_denied"),
        ("verified", "active", 1, None),
        ("disabled", "disabled", 1, None),
        ("enabled", "active", 1, None),
        ("deleted", "deleted", 1, None),
    ]


def test_delete_is_idempotent_and_leaves_no_ciphertext() -> None:
    """There is nothing left to decrypt, and deleting what is not there is no error."""
    scene = a_scene_with()
    delete_provider("acme", scene.deps)
    assert (scene.row.active, scene.row.candidate) == (None, None)
    assert refused(lambda: get_provider("acme", scene.deps)).code == "not_found"
    delete_provider("acme", scene.deps)
    delete_provider("nobody", scene.deps)
    assert "nobody" not in scene.store.rows


def test_versions_are_never_reused() -> None:
    """Not after DELETE, not after a candidate was replaced: five configs have five versions."""
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
    """The refusal says so; the provider stays suspended."""
    scene = a_scene(a_provider(status=ProviderStatus.SUSPENDED, revision=1))
    refusal = refused(lambda: enable_provider("acme", scene.deps))
    assert refusal.code == "provider_not_active"
    assert "verify" in str(refusal)


def test_onboarding_before_anything_is_stored() -> None:
    """A tenant makes its role first: the ExternalId is there, and is the one that its config gets later."""
    scene = a_scene()
    onboarding = onboard("acme", scene.deps)
    assert refused(lambda: get_provider("acme", scene.deps)).code == "not_found"
    again = onboard("acme", scene.deps)
    assert (again.external_id, again.template) == (onboarding.external_id, onboarding.template)
    put(scene, ROLE)
    assert shown_credentials(scene)["externalId"] == onboarding.external_id


def test_onboarding_publishes_nothing_of_a_tenant() -> None:
    """Its own template holds its ExternalId; the one in the bucket serves every tenant, and the link adds what is the tenant's."""
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
    """Events are on the bus of that region; before a config is stored it is ours."""
    assert onboard("acme", a_scene().deps).quick_create_link.startswith("https://eu-west-1.console")
    scene = a_scene()
    put(scene, region="ap-south-1")
    assert onboard("acme", scene.deps).quick_create_link.startswith("https://ap-south-1.console")

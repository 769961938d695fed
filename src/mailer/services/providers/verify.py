"""Prove a stored config with a mail from and to its own from-address; what passes becomes the active config in one write."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mailer.domain import lifecycle
from mailer.domain.delivery import NotSent, Outcome, Sent
from mailer.domain.errors import DependencyError, ErrorInfo, MailerError, NotSentError, Problem, RequestError
from mailer.domain.lifecycle import VerificationResult
from mailer.domain.message import EmailMessage, Mailbox
from mailer.domain.mime import Mail, compose
from mailer.domain.moments import to_millis
from mailer.domain.provider import Provider, RoleConfig, Simulation, StoredConfig
from mailer.domain.remediation import add_remediation
from mailer.domain.tags import verify_tags
from mailer.ports import AccountFacts, EmailProvider
from mailer.services.providers.providers import ProviderDependencies, change, decrypt_config, role_of

SEND_BY = timedelta(seconds=12)
"""How long decrypting the config may take: API Gateway waits 29 s for the whole call, and SES has up to 13 s to accept the mail."""

ASK_BY = timedelta(seconds=10)
"""After this time the account is not queried any more, which takes up to three calls of up to 5 s."""

SIMULATE_BY = timedelta(seconds=13)
"""After this no mail to the simulator is begun: SES has up to 13 s to accept it, and API Gateway waits 29 s for all."""

SIMULATOR = {"bounce": "bounce@simulator.amazonses.com", "complaint": "complaint@simulator.amazonses.com"}
"""SES's mailbox simulator: outside quota and reputation, also from the sandbox; within the account's rate."""

PAUSE = timedelta(seconds=1.1)
"""Until the account may send again, where it may send one mail a second, as in the sandbox."""

SUBJECT = "{platform} — SES connection test"
TEXT = "This is a test email from {platform} to verify your AWS SES configuration."


@dataclass(eq=False)
class VerifyFailedError(MailerError):
    """The config did not pass; the active config stays as it was."""

    error: ErrorInfo

    def __str__(self) -> str:
        return f"{self.error.code}: {self.error.message}"


@dataclass(frozen=True, slots=True)
class Verified:
    """A config that passed: SES's id of the test mail, the row after it, and the outcome of each mail to the simulator."""

    message_id: str
    row: Provider
    simulated: Mapping[str, Outcome]


def verify_provider(tenant_id: str, deps: ProviderDependencies, *, simulate: bool = False, by: str | None = None) -> Verified:
    """Test the candidate, or the active config if there is none, and make it the active one.

    With `simulate` it then has SES's simulator make a bounce and a complaint, whose events show whether feedback works.

    Raises:
        VerifyFailedError: the tenant's account, role or config does not let mail go out.
        RequestError: not_found; provider_not_active where another config was stored meanwhile; invalid_request where there is nothing
            to simulate, as SES reports nothing of this config's mail.
        DependencyError: KMS, STS or DynamoDB did not do its part.
    """
    started = deps.clock.now()
    row = lifecycle.existing(deps.store.get(tenant_id))
    config = lifecycle.to_verify(row)
    if simulate and config.configuration_set is None:
        raise RequestError([Problem("simulate", "needs a config with configurationSet: without it SES reports nothing")])
    try:
        provider = _create_provider(row, config, started, deps)
    except NotSentError as refusal:
        raise _failed(row, config, refusal.error, deps, by) from refusal
    if deps.clock.now() - started > SEND_BY:
        raise DependencyError("AWS", "the decryption of the config in time")
    outcome = provider.send(_test_mail(provider, deps, provider.sender.email), tags=_tags(row, config))
    if not isinstance(outcome, Sent):
        raise _failed(row, config, _here(outcome.error), deps, by)
    facts = provider.account_facts() if deps.clock.now() - started < ASK_BY else AccountFacts()
    passed = VerificationResult(
        at=deps.clock.now(),
        account=facts.account,
        sandbox=facts.sandbox,
        quota_rate=facts.max_send_rate,
        quota_24h=facts.quota_24h,
        simulation=Simulation(started_at=started) if simulate else None,
    )
    verified = change(tenant_id, deps, lambda current: lifecycle.verify(current, config.version, passed), by=by)
    # After the row names the simulation: SES's first event may come before the second mail is out.
    simulated = _simulate(provider, _tags(row, config, passed.simulation), started, deps) if simulate else {}
    return Verified(outcome.message_id, verified, simulated)


def _tags(row: Provider, config: StoredConfig, simulation: Simulation | None = None) -> Mapping[str, str]:
    """Return the tags of a test mail; none without a configuration set, which they need."""
    if config.configuration_set is None:
        return {}
    return verify_tags(row.tenant_id, config.version, to_millis(simulation.started_at) if simulation else None)


def _simulate(provider: EmailProvider, tags: Mapping[str, str], started: datetime, deps: ProviderDependencies) -> Mapping[str, Outcome]:
    """Send the mails to the simulator while there is time for them; the config has passed whatever their outcome."""
    return {kind: _send_in_time(provider, address, tags, started + SIMULATE_BY, deps) for kind, address in SIMULATOR.items()}


def _send_in_time(provider: EmailProvider, to: str, tags: Mapping[str, str], begin_by: datetime, deps: ProviderDependencies) -> Outcome:
    outcome: Outcome = _NO_TIME
    while deps.clock.now() <= begin_by:
        outcome = provider.send(_test_mail(provider, deps, to), tags=tags)
        if isinstance(outcome, Sent):
            break
        outcome = replace(outcome, error=_here(outcome.error))
        if outcome.error.code != "throttled":
            break
        deps.clock.wait_until(deps.clock.now() + PAUSE)
    return outcome


_NO_TIME = NotSent(ErrorInfo("throttled", "verify took too long to send this mail too", "Caller: verify again."))


def _create_provider(row: Provider, config: StoredConfig, started: datetime, deps: ProviderDependencies) -> EmailProvider:
    if config.credentials["type"] == "role":
        _refuse_unprotected_role(row, config, deps)
    return deps.provider_factory.create(row.tenant_id, config, started)


def _refuse_unprotected_role(row: Provider, config: StoredConfig, deps: ProviderDependencies) -> None:
    """Refuse a role that anyone who knows its ARN could make us assume (the confused deputy problem in AWS's IAM guide)."""
    role = decrypt_config(row, config, deps)
    if isinstance(role, RoleConfig) and not deps.trust.refuses_foreign_external_id(role):
        message = "the role's trust policy admits this service without the tenant's ExternalId, so that any other tenant could use the role"
        raise NotSentError(ErrorInfo("role_not_assumable", message))


def _test_mail(provider: EmailProvider, deps: ProviderDependencies, to: str) -> Mail:
    platform = deps.platform.name
    message = EmailMessage(
        to=(Mailbox(email=to),),
        subject=SUBJECT.format(platform=platform),
        text=TEXT.format(platform=platform),
    )
    return compose(message, provider.sender, date=deps.clock.now())


_HERE = {
    "throttled": "Caller: the account sends at its full rate; verify again in some seconds.",
    "daily_quota_exceeded": "Tenant: the account's 24-hour quota is used up; verify again when some of it is free, or ask AWS for more.",
    "outcome_unknown": "Caller: verify again; this test mail may have gone out, and a second one does no harm.",
}
"""Hints for errors after which a send would be tried again by itself, or held."""


def _here(error: ErrorInfo) -> ErrorInfo:
    return replace(error, remediation=_HERE.get(error.code, error.remediation))


def _failed(row: Provider, config: StoredConfig, error: ErrorInfo, deps: ProviderDependencies, by: str | None) -> VerifyFailedError:
    """Note on the row why the config did not pass; only the answer names the role."""
    noted = add_remediation(error, config)
    change(row.tenant_id, deps, lambda current: lifecycle.fail_verify(current, config.version, noted, deps.clock.now()), by=by)
    return VerifyFailedError(add_remediation(error, config, role_of(row, config, deps)))

"""The responses of the provider API: without secrets, and only with the end of an access key's id."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mailer.domain.delivery import Outcome, Sent
from mailer.domain.feedback_state import FeedbackState, feedback_hint, feedback_state
from mailer.domain.provider import Provider, ProviderStatus, ProviderType, Resumption, Sandbox, Simulation, StoredConfig
from mailer.domain.wire import STRICT_BOOL, WireModel, fault
from mailer.handlers.rest.models import Error, Note, Time
from mailer.services.providers.providers import Onboarding
from mailer.services.providers.verify import Verified


def _is_none(value: object) -> bool:
    return value is None


class VerifyRequest(WireModel):
    """Options of `verify`."""

    simulate: Annotated[bool, STRICT_BOOL] = False


class EnableRequest(WireModel):
    """Who resumes a provider that the reputation guard suspended, and why; both or neither."""

    by: Note | None = None
    why: Note | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.by is None) != (self.why is None):
            raise fault("must have both by and why, or neither")
        return self


class ResumptionRecord(WireModel):
    """How a provider that the reputation guard suspended was resumed; `principal` is the ARN of the IAM identity that called."""

    by: str
    why: str
    at: Time
    principal: Annotated[str | None, Field(exclude_if=_is_none)] = None

    @classmethod
    def of(cls, resumption: Resumption) -> Self:
        """Show a resumption."""
        return cls(by=resumption.by, why=resumption.why, at=resumption.at, principal=resumption.principal)


class SimulationRecord(WireModel):
    """A bounce and a complaint that verify had SES's mailbox simulator cause, and when their events arrived."""

    started_at: Time
    bounce_reported_at: Time | None
    complaint_reported_at: Time | None

    @classmethod
    def of(cls, simulation: Simulation) -> Self:
        """Show a simulation."""
        return cls(
            started_at=simulation.started_at,
            bounce_reported_at=simulation.bounce_reported_at,
            complaint_reported_at=simulation.complaint_reported_at,
        )


class Config(WireModel):
    """One version of a config, without its secrets."""

    provider: ProviderType
    version: int
    region: str | None
    from_address: str
    from_name: str
    credentials: Mapping[str, str]
    configuration_set: str | None
    max_send_rate: float | None
    feedback: FeedbackState
    last_feedback_at: Time | None
    feedback_hint: str | None
    simulation: SimulationRecord | None
    error: Error | None

    @classmethod
    def of(cls, config: StoredConfig) -> Self:
        """Show a config."""
        return cls(**_shown(config), error=Error.of(config.error) if config.error else None)


class ProviderRecord(WireModel):
    """A tenant's provider: its active config, or the candidate if there is none."""

    provider: ProviderType
    status: Literal[ProviderStatus.UNVERIFIED, ProviderStatus.ACTIVE, ProviderStatus.DISABLED, ProviderStatus.SUSPENDED]
    version: int
    region: str | None
    from_address: str
    from_name: str
    credentials: Mapping[str, str]
    configuration_set: str | None
    max_send_rate: float | None
    feedback: FeedbackState
    last_feedback_at: Time | None
    feedback_hint: str | None
    simulation: SimulationRecord | None
    sandbox: Sandbox
    verified_at: Time | None
    updated_at: Time
    updated_by: str | None
    warnings: tuple[str, ...]
    candidate: Config | None
    error: Error | None
    resumption: Annotated[ResumptionRecord | None, Field(exclude_if=_is_none)] = None

    @classmethod
    def of(cls, row: Provider) -> Self:
        """Show a row, which must not be a tombstone."""
        shown = row.active or row.candidate
        if shown is None:
            raise ValueError("a tombstone has nothing to show")
        error = row.error if row.active else shown.error
        return cls(
            **_shown(shown),
            status=row.status,
            sandbox=row.sandbox,
            verified_at=row.verified_at,
            updated_at=row.updated_at,
            updated_by=row.updated_by,
            warnings=row.warnings,
            candidate=Config.of(row.candidate) if row.active and row.candidate else None,
            error=Error.of(error) if error else None,
            resumption=ResumptionRecord.of(row.resumption) if row.resumption else None,
        )


class TenantRecord(ProviderRecord):
    """A tenant and its provider, in a list: of a role's credentials only the type."""

    tenant_id: str

    @classmethod
    def of(cls, row: Provider) -> Self:
        """Show a row, which must not be a tombstone."""
        return cls(tenant_id=row.tenant_id, **dict(ProviderRecord.of(row)))


class TenantPage(WireModel):
    """A page of tenants, by status and then by name; `cursor` leads to the next one and is null on the last."""

    tenants: list[TenantRecord]
    cursor: str | None


def _shown(config: StoredConfig) -> dict[str, Any]:
    return {
        "provider": config.provider,
        "version": config.version,
        "region": config.region or None,
        "from_address": config.from_address,
        "from_name": config.from_name,
        "credentials": config.credentials,
        "configuration_set": config.configuration_set,
        "max_send_rate": config.max_send_rate,
        "feedback": feedback_state(config),
        "last_feedback_at": config.feedback_at,
        "feedback_hint": feedback_hint(config),
        "simulation": SimulationRecord.of(config.simulation) if config.simulation else None,
    }


class SimulatedMail(WireModel):
    """The result of a mail to SES's simulator: its id, or why it was not sent."""

    message_id: str | None
    error: Error | None

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Show an outcome."""
        if isinstance(outcome, Sent):
            return cls(message_id=outcome.message_id, error=None)
        return cls(message_id=None, error=Error.of(outcome.error))


class SimulatedMails(WireModel):
    """The two mails to SES's simulator."""

    bounce: SimulatedMail
    complaint: SimulatedMail


class VerifyAnswer(WireModel):
    """The test mail was accepted: the config is the active one."""

    message_id: str
    sandbox: Sandbox
    warnings: tuple[str, ...]
    status: ProviderStatus
    version: int
    simulated: SimulatedMails | None

    @classmethod
    def of(cls, verified: Verified) -> Self:
        """Show a passing verify."""
        row = verified.row
        return cls(
            message_id=verified.message_id,
            sandbox=row.sandbox,
            warnings=row.warnings,
            status=row.status,
            version=row.active.version if row.active else row.versions,
            simulated=SimulatedMails(**{kind: SimulatedMail.of(outcome) for kind, outcome in verified.simulated.items()})
            if verified.simulated
            else None,
        )


class OnboardingAnswer(WireModel):
    """What a tenant sets up in its own AWS account; the template is CloudFormation's, as the text of a JSON file."""

    external_id: str
    iam_policy: Mapping[str, Any]
    trust_policy: Mapping[str, Any]
    cloud_formation_template: str
    quick_create_link: str

    @classmethod
    def of(cls, onboarding: Onboarding) -> Self:
        """Show what is to be set up."""
        return cls(
            external_id=onboarding.external_id,
            iam_policy=onboarding.iam_policy,
            trust_policy=onboarding.trust_policy,
            cloud_formation_template=onboarding.template,
            quick_create_link=onboarding.quick_create_link,
        )

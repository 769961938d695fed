"""What the suppressions API takes and answers; the OpenAPI document reads it too."""

from typing import Annotated, Self

from pydantic import Field

from mailer.domain.message import Address, UtcTime
from mailer.domain.suppressions import Reason, Suppression
from mailer.domain.wire import WireModel
from mailer.handlers.rest.models import Note, ProblemDocument, Time
from mailer.services.suppressions.lists import Lifted, SesList


def _is_none(value: object) -> bool:
    return value is None


class SuppressionPut(WireModel):
    """Why an address is not to be mailed, and until when; without an end until it is lifted."""

    why: Note
    expires_at: UtcTime | None = None


class SuppressionBatchItem(SuppressionPut):
    """The same with the address that it is about."""

    email: Address


class SuppressionRecord(WireModel):
    """Why an address is left out of a tenant's mail."""

    email: str
    reason: Reason
    request_id: Annotated[str | None, Field(exclude_if=_is_none)] = None
    at: Time
    expires_at: Annotated[Time | None, Field(exclude_if=_is_none)] = None
    by: Annotated[str | None, Field(exclude_if=_is_none)] = None
    why: Annotated[str | None, Field(exclude_if=_is_none)] = None
    may_have_complained: Annotated[bool, Field(exclude_if=lambda shared: not shared)] = False

    @classmethod
    def of(cls, email: str, suppression: Suppression) -> Self:
        """Show a suppression."""
        return cls(
            email=email,
            reason=suppression.reason,
            request_id=suppression.request_id,
            at=suppression.at,
            expires_at=suppression.expires_at,
            by=suppression.by,
            why=suppression.why,
            may_have_complained=suppression.may_have_complained,
        )


class SuppressionList(WireModel):
    """A page of suppressed addresses, newest first; `cursor` leads to the next one and is null on the last."""

    suppressions: list[SuppressionRecord]
    cursor: str | None


class SesListState(WireModel):
    """Whether the account's own list at SES may still hold the address, and the command that takes it off."""

    may_hold: bool
    command: str | None

    @classmethod
    def of(cls, ses_list: SesList) -> Self:
        """Show what is known of the list."""
        return cls(may_hold=ses_list.may_hold, command=ses_list.command)


class LiftedSuppression(SuppressionRecord):
    """A suppression that was lifted, as it was."""

    ses_list: SesListState

    @classmethod
    def after(cls, email: str, lifted: Lifted) -> Self:
        """Show what was lifted, and what may stand at SES."""
        record = SuppressionRecord.of(email, lifted.suppression)
        return cls(**dict(record), ses_list=SesListState.of(lifted.ses_list))


class SuppressionBatchAnswer(WireModel):
    """What `PUT` would have answered for one address of a batch: its status with the record, or with the problem."""

    status: int
    record: Annotated[SuppressionRecord | None, Field(exclude_if=_is_none)] = None
    problem: Annotated[ProblemDocument | None, Field(exclude_if=_is_none)] = None

"""Requests and responses of the suppressions API; the OpenAPI document is made from them."""

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
    """Why an address is to be suppressed, and until when; without `expiresAt` until it is lifted."""

    why: Note
    expires_at: UtcTime | None = None


class SuppressionBatchItem(SuppressionPut):
    """The same, with the address."""

    email: Address


class SuppressionRecord(WireModel):
    """Why an address is suppressed for a tenant."""

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
    """Whether the address may still be on the account's own list at SES, and the command that removes it."""

    may_hold: bool
    command: str | None

    @classmethod
    def of(cls, ses_list: SesList) -> Self:
        """Show the state of the list."""
        return cls(may_hold=ses_list.may_hold, command=ses_list.command)


class LiftedSuppression(SuppressionRecord):
    """A suppression that was lifted, as it was."""

    ses_list: SesListState

    @classmethod
    def after(cls, email: str, lifted: Lifted) -> Self:
        """Show what was lifted, and the state of SES's list."""
        record = SuppressionRecord.of(email, lifted.suppression)
        return cls(**dict(record), ses_list=SesListState.of(lifted.ses_list))


class SuppressionBatchAnswer(WireModel):
    """The response that `PUT` would have given for one address of a batch: its status with the record, or with the problem."""

    status: int
    record: Annotated[SuppressionRecord | None, Field(exclude_if=_is_none)] = None
    problem: Annotated[ProblemDocument | None, Field(exclude_if=_is_none)] = None

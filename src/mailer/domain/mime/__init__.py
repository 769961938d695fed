"""Compose the raw message: addresses → headers → bodies → parts → message."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sender:
    """Who the mail is from: the address and name of the tenant's config."""

    email: str
    name: str


@dataclass(frozen=True, slots=True)
class Mail:
    """A finished message and its envelope."""

    mail_from: str
    recipients: tuple[str, ...]
    mime: bytes = field(repr=False)

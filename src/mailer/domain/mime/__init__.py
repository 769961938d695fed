"""Compose the raw message: addresses → headers → bodies → parts → message."""

from mailer.domain.mime.composer import Mail, Sender, compose, problems
from mailer.domain.mime.parts import Load

__all__ = ["Load", "Mail", "Sender", "compose", "problems"]

"""An encrypted entry of a table: what those who encrypt it and the table that has it agree on."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """What only its writers can decrypt, until when."""

    content: bytes = field(repr=False)
    until: datetime
    """In whole seconds."""

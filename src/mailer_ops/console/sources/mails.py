"""Mails that the SES of the local AWS has accepted; real SES does not show them."""

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

SECONDS = 5.0
"""Timeout of a call to the local AWS."""

_LOCAL = {"127.0.0.1", "localhost", "::1"}
_ESCAPED = {"__": "_", "_d": ".", "_c": ":"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedMail:
    """One accepted mail: its envelope, and the file with its bytes."""

    number: int
    message_id: str
    at: datetime
    source: str
    destinations: tuple[str, ...]
    size: int
    tags: Mapping[str, str]
    file: Path

    @property
    def request(self) -> tuple[str, str] | None:
        """Return tenantId and requestId of its request, from its tags; None without them."""
        if "tenantmail-request" not in self.tags:
            return None
        request_id = re.sub("__|_d|_c", lambda found: _ESCAPED[found[0]], self.tags["tenantmail-request"])
        return self.tags.get("tenantmail-tenant", ""), request_id

    def raw(self) -> bytes:
        """Return its bytes."""
        return self.file.read_bytes()


class Mails(Protocol):
    """Accepted mails of a local SES."""

    def newest(self) -> list[AcceptedMail]:
        """List the mails, newest first.

        Raises:
            OSError: the local AWS does not answer.
        """
        ...


class LocalMails:
    """The ledger of the local AWS (`make up`), read from its control port."""

    def __init__(self, url: str) -> None:
        if urlsplit(url).hostname not in _LOCAL:
            raise ValueError(f"{url} is not on this machine")
        self._address = urlsplit(url).netloc

    def newest(self) -> list[AcceptedMail]:
        """List the mails, newest first.

        Raises:
            OSError: the local AWS does not answer.
        """
        connection = http.client.HTTPConnection(self._address, timeout=SECONDS)
        try:
            connection.request("GET", "/mails")
            found: list[dict[str, Any]] = json.loads(connection.getresponse().read())
        except http.client.HTTPException as error:
            raise OSError("the local AWS sent an invalid response") from error
        finally:
            connection.close()
        return [_mail(mail) for mail in reversed(found)]


def _mail(entry: Mapping[str, Any]) -> AcceptedMail:
    return AcceptedMail(
        number=entry["number"],
        message_id=entry["message_id"],
        at=datetime.fromtimestamp(entry["time"], UTC),
        source=entry["source"],
        destinations=tuple(entry["destinations"]),
        size=entry["size"],
        tags=entry["tags"],
        file=Path(entry["eml"]),
    )

"""Cursors: where a page of a list ended; each is valid for that list only."""

import base64
import binascii
import re

CREATED_KEY = re.compile(r"[0-9T:.+-]{29}#[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""The sort key of send requests in lists: when the request was accepted, and its id."""

SUPPRESSED_KEY = re.compile(r"[0-9T:.+-]{29}#[0-9a-f]{64}")
"""The key that suppressed addresses are listed by: when it was suppressed, and its digest."""

LISTED_PROVIDER = re.compile(r"(?:active|disabled|suspended|unverified)#[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""The key that providers are listed by: the status, and the tenant."""

_MAX_CURSOR = 1024  # characters; the longest of ours has less than 400


def to_cursor(*place: str) -> str:
    """Make a cursor: the list's name (tenant and filter), then the last key of the page."""
    return base64.urlsafe_b64encode("\n".join(place).encode()).decode().rstrip("=")


def from_cursor(cursor: str, *name: str, key: re.Pattern[str]) -> str:
    """Return the key of a cursor of the list with this name.

    Raises:
        KeyError: it is another list's, or `to_cursor` did not make it.
    """
    if len(cursor) > _MAX_CURSOR:
        raise KeyError("cursor")
    try:
        place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split("\n")
    except (binascii.Error, ValueError) as error:
        raise KeyError("cursor") from error
    if to_cursor(*place) != cursor or tuple(place[:-1]) != name or not key.fullmatch(place[-1]):
        raise KeyError("cursor")
    return place[-1]

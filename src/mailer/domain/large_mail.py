"""Tell what depends on a mail's size: which of SES's operations takes it, how long it may take, what it uses of the account's bandwidth.

SES v1's SendRawEmail takes small mails, v2's SendEmail also large ones; of those SES takes only so many bytes a second from an account.
Source: "Service quotas in Amazon SES", developer guide.
"""

from datetime import timedelta

SMALL_BYTES = 10_485_760
"""Bytes of raw message that SES v1 takes: "Message length is more than 10485760 bytes long"."""

LARGE_BYTES = 41_943_040
"""Bytes of raw message that SES v2 takes: 40 MB, counted as v1's 10 MB are."""

BANDWIDTH = 40.0
"""Megabytes of large mails that SES takes of an account each second: "as low as 40MB/s"."""

_MEGABYTE = 1_000_000

UPLOAD_SPEED = 3_000_000
"""Bytes of raw message a second; four bytes of base64 stand for three. The least at which a mail has to go out: 24 Mbit/s of the 600 that a
function has."""


def is_large(size: int) -> bool:
    """Whether a raw message is too large for SES v1."""
    return size > SMALL_BYTES


def megabytes(size: int) -> int:
    """Return what a raw message uses of the bandwidth, in whole megabytes."""
    return -(-size // _MEGABYTE)


def upload_time(size: int) -> timedelta:
    """Return how much longer than a mail of no size a mail may take to be written to SES: up to 13 s, in whole seconds."""
    return timedelta(seconds=size // UPLOAD_SPEED)

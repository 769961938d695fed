"""Turn what botocore raises for one of our own AWS services into `DependencyError`."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from mailer.domain.errors import DependencyError

_ANSWERS = frozenset({"ConditionalCheckFailedException", "NoSuchKey", "NoSuchVersion", "404"})
"""Codes that are answers to a question rather than failures; they pass through as they are."""


@contextmanager
def dependency_errors(service: str, operation: str) -> Iterator[None]:
    """Raise DependencyError for any failure of a call to one of our own services; its text names the call, never the data."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _ANSWERS:
            raise
        raise DependencyError(service, f"{operation} ({code})") from error
    except BotoCoreError as error:
        raise DependencyError(service, f"{operation} ({type(error).__name__})") from error


@contextmanager
def readable(service: str, operation: str) -> Iterator[None]:
    """Raise DependencyError for an answer that lacks what AWS documents of it: a success that says nothing proves nothing."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise DependencyError(service, f"{operation} (unreadable answer)") from error

"""Convert botocore's errors for our own AWS services to `DependencyError`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from mailer.domain.errors import DependencyError

_ANSWERS = frozenset({"ConditionalCheckFailedException", "NoSuchKey", "NoSuchVersion", "404"})
"""Codes that are answers rather than failures; they are not converted."""


UNREADABLE = (ResponseParserError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors of reading a malformed answer, in botocore's parsers or in our code, or an item that our code did not write."""


@contextmanager
def dependency_errors(service: str, operation: str) -> Iterator[None]:
    """Raise DependencyError for any failure of a call to one of our own services; its text names the call, not the data."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _ANSWERS:
            raise
        raise DependencyError(service, f"{operation} ({code})") from error
    except (BotoCoreError, *UNREADABLE) as error:
        raise DependencyError(service, f"{operation} ({type(error).__name__})") from error


@contextmanager
def readable(service: str, operation: str) -> Iterator[None]:
    """Raise DependencyError for an answer that lacks documented members, even if its status is a success."""
    try:
        yield
    except UNREADABLE as error:
        raise DependencyError(service, f"{operation} (unreadable answer)") from error


ReportFailure = Callable[[str, str | None, Exception], None]
"""Reports a step that failed, and for which tenant."""


def report_nothing(step: str, tenant_id: str | None, error: Exception) -> None:
    """Report nothing."""

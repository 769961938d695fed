"""Turn what botocore raises for one of our own AWS services into `DependencyError`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from mailer.domain.errors import DependencyError

_ANSWERS = frozenset({"ConditionalCheckFailedException", "NoSuchKey", "NoSuchVersion", "404"})
"""Codes that are answers to a question rather than failures; they pass through as they are."""


UNREADABLE = (ResponseParserError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What an answer of another shape raises, in botocore's parsers or where we read it; an item too that is not as our own code writes it."""


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
    except (BotoCoreError, *UNREADABLE) as error:
        raise DependencyError(service, f"{operation} ({type(error).__name__})") from error


@contextmanager
def readable(service: str, operation: str) -> Iterator[None]:
    """Raise DependencyError for an answer that lacks what AWS documents of it: a success that says nothing proves nothing."""
    try:
        yield
    except UNREADABLE as error:
        raise DependencyError(service, f"{operation} (unreadable answer)") from error


ReportFailure = Callable[[str, str | None, Exception], None]
"""Hears of a step that failed, and for which tenant."""


def report_nothing(step: str, tenant_id: str | None, error: Exception) -> None:
    """Report nothing."""

"""The result of a source: a value, or a trouble with a sentence for the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError

from mailer.domain.errors import DependencyError
from mailer_client import ApiError
from mailer_ops.stack import DENIED, explain

type Kind = Literal["denied", "missing", "refused", "unreached"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why there is no value: denied by IAM, not found, rejected, or not reachable."""

    kind: Kind
    text: str
    code: str = ""
    hint: str = ""
    faults: Sequence[tuple[str, str]] = ()
    """Path and problem of each invalid field."""

    @property
    def title(self) -> str:
        """Return the headline."""
        return {"denied": "Denied by IAM", "missing": "Not there", "refused": "Refused", "unreached": "No answer"}[self.kind]


@dataclass(frozen=True, slots=True)
class Answer[T]:
    """A value or a trouble."""

    value: T | None = None
    trouble: Trouble | None = None


def ask[T](call: Callable[[], T], stack: str, *, what: str = "") -> Answer[T]:
    """Make a call to AWS or the API; the sentence about a denial contains `what`."""
    try:
        return Answer(call())
    except ApiError as refusal:
        return Answer(trouble=_refused(refusal, what))
    except (ClientError, BotoCoreError, DependencyError) as failure:
        return Answer(trouble=_failed(failure, stack))


def _refused(refusal: ApiError, what: str) -> Trouble:
    problem = refusal.problem
    if refusal.status == HTTPStatus.FORBIDDEN:
        why = problem.detail if problem else "they lack execute-api:Invoke on it"  # or have expired, which only API Gateway says
        text = f"Your credentials may not call {what}: {why}."
        return Trouble(kind="denied", code="access_denied", text=text, hint="docs/deploy.md has the operator's policy.")
    if problem is None:
        return Trouble(kind="unreached", text=f"{what} was answered with {refusal.status}, and not by the API itself.")
    kind: Kind = "missing" if refusal.status == HTTPStatus.NOT_FOUND else "refused"
    faults = tuple((fault.path, fault.problem) for fault in problem.errors)
    return Trouble(kind=kind, code=problem.code, text=problem.detail, hint=problem.hint, faults=faults)


def _failed(failure: Exception, stack: str) -> Trouble:
    cause = failure.__cause__ if isinstance(failure, DependencyError) and failure.__cause__ else failure
    denied = isinstance(cause, ClientError) and cause.response["Error"].get("Code") in DENIED
    return Trouble(kind="denied" if denied else "unreached", text=explain(failure, stack))

"""Network faults: for which caller, at which moment, how often.

A fault is data, so that a test can send it as JSON to the proxy. The moments of one request:

    connect ─ accepted, nothing read        (the caller is not known yet)
    head    ─ headers read, body not        (the access key identifies the caller)
    before  ─ whole request read, service not called
    after   ─ the service has responded: its effect stays, only the response is affected
"""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import count
from typing import Any, Self
from uuid import uuid4
from xml.sax.saxutils import escape

from tools.local_aws.wire import Request, Response


class When(StrEnum):
    CONNECT = "connect"
    HEAD = "head"
    BEFORE = "before"
    AFTER = "after"


class Action(StrEnum):
    ERROR = "error"  # respond with `status`, `code` and `message`, in the service's error format
    HANG = "hang"  # never respond; the connection stays open until the client or `clear` ends it
    RESET = "reset"  # TCP RST
    CLOSE = "close"  # end the connection without a response
    TRUNCATE = "truncate"  # half of the response's body, then the end of the connection
    GARBAGE = "garbage"  # a 200 that cannot be parsed
    DELAY = "delay"  # wait `seconds`, then continue; other faults may still apply
    SLOW = "slow"  # the response in pieces, spread over `seconds`


MOMENTS = {
    Action.ERROR: {When.BEFORE, When.AFTER},
    Action.HANG: set(When),
    Action.RESET: set(When),
    Action.CLOSE: set(When),
    Action.TRUNCATE: {When.AFTER},
    Action.GARBAGE: {When.BEFORE, When.AFTER},
    Action.DELAY: {When.HEAD, When.BEFORE, When.AFTER},
    Action.SLOW: {When.AFTER},
}


@dataclass(slots=True)
class Fault:
    """One rule. Empty fields match every request; `text` must occur in the request's body.

    `times` 0 means until cleared; `skip` exempts the first ones.
    """

    action: Action
    when: When = When.BEFORE
    service: str = ""
    operation: str = ""
    access_key: str = ""
    account: str = ""
    path: str = ""
    text: str = ""
    times: int = 0
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    status: int = 400
    code: str = ""
    message: str = ""
    seconds: float = 0.0
    id: int = 0
    hits: int = 0
    _dice: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Parse a rule from a control request.

        Raises: `ValueError` for an invalid combination.
        """
        fault = cls(**{**data, "action": Action(data["action"]), "when": When(data.get("when", "before"))})
        if fault.when not in MOMENTS[fault.action]:
            raise ValueError(f"{fault.action} cannot happen at the moment {fault.when}")
        if fault.when is When.CONNECT and (fault.operation or fault.access_key or fault.account or fault.path or fault.text):
            raise ValueError("at the moment connect the caller is not known")
        fault._dice.seed(fault.seed)
        return fault

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}

    @property
    def spent(self) -> bool:
        return bool(self.times) and self.hits >= self.times

    def applies(self) -> bool:
        """Count one matching request, and return whether the fault applies to it."""
        if self.skip:
            self.skip -= 1
            return False
        if self.probability < 1 and self._dice.random() >= self.probability:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True, slots=True)
class Caller:
    """Caller and operation, as far as they are known at a moment."""

    service: str
    operation: str = ""
    access_key: str = ""
    account: str = ""
    path: str = ""
    body: bytes = b""


class Faults:
    """Active rules, in the order in which they were added."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._ids = count(1)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._rules)

    def add(self, fault: Fault) -> Fault:
        fault.id = next(self._ids)
        self._rules.append(fault)
        return fault

    def clear(self, **wanted: str) -> None:
        """Remove the rules with these fields, by default all."""
        self._rules = [rule for rule in self._rules if any(str(getattr(rule, name)) != value for name, value in wanted.items())]

    def take(self, when: When, caller: Caller) -> list[Fault]:
        """Return the faults of this request at this moment: all delays, and the first other fault."""
        taken: list[Fault] = []
        for rule in self._rules:
            if rule.when is when and not rule.spent and _fits(rule, caller) and rule.applies():
                taken.append(rule)
                if rule.action is not Action.DELAY:
                    break
        return taken


def _fits(rule: Fault, caller: Caller) -> bool:
    exact = all(getattr(rule, name) in ("", getattr(caller, name)) for name in ("service", "operation", "access_key", "account"))
    return exact and rule.path in caller.path and rule.text.encode() in caller.body


def error_response(request: Request, status: int, code: str, message: str) -> Response:
    """Return an error in the format of the service: JSON, the query protocol's XML, or S3's."""
    content_type = request.headers.get("content-type", "")
    if request.headers.get("x-amz-target") or "json" in content_type:
        body = json.dumps({"__type": code, "message": message})
        return Response.make(status, body.encode(), "application/x-amz-json-1.0", x_amzn_errortype=code)
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if content_type.startswith("application/x-www-form-urlencoded"):
        side = "Sender" if status < 500 else "Receiver"
        body = f"<ErrorResponse><Error><Type>{side}</Type>{inner}</Error><RequestId>{uuid4()}</RequestId></ErrorResponse>"
    else:
        body = f"<Error>{inner}<RequestId>{uuid4()}</RequestId></Error>"
    return Response.make(status, body.encode(), "text/xml")

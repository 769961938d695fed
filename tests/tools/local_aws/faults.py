"""Say what goes wrong on the wire: for whom, at which moment, how often.

A fault is data, so that it travels as JSON from a test to the proxy. The moments of one request:

    connect ─ accepted, nothing read        (fits no caller: nobody has said who they are yet)
    head    ─ headers read, body not        (the caller is known by the access key)
    before  ─ whole request read, service not asked
    after   ─ the service has answered: what it did is done, only the answer suffers
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
    ERROR = "error"  # answer `status`, `code` and `message`, worded as the service words errors
    HANG = "hang"  # never answer; the connection stays open until the client or `clear` ends it
    RESET = "reset"  # TCP RST
    CLOSE = "close"  # end the connection without an answer
    TRUNCATE = "truncate"  # half of the answer's body, then the end of the connection
    GARBAGE = "garbage"  # a 200 that no parser takes
    DELAY = "delay"  # wait `seconds`, then go on; other faults may still apply
    SLOW = "slow"  # the answer in pieces, spread over `seconds`


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
    """One rule. Fields left empty fit everyone; `text` must be found in the request's body.

    `times` 0 means until cleared; `skip` lets the first ones through.
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
        """Read a rule from a control request.

        Raises: `ValueError` for a combination that means nothing.
        """
        fault = cls(**{**data, "action": Action(data["action"]), "when": When(data.get("when", "before"))})
        if fault.when not in MOMENTS[fault.action]:
            raise ValueError(f"{fault.action} cannot happen at the moment {fault.when}")
        if fault.when is When.CONNECT and (fault.operation or fault.access_key or fault.account or fault.path or fault.text):
            raise ValueError("at the moment connect nobody knows who is calling")
        fault._dice.seed(fault.seed)
        return fault

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}

    @property
    def spent(self) -> bool:
        return bool(self.times) and self.hits >= self.times

    def strikes(self) -> bool:
        """Count one fitting request and say whether this one is hit."""
        if self.skip:
            self.skip -= 1
            return False
        if self.probability < 1 and self._dice.random() >= self.probability:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls what, as far as it is known at a moment."""

    service: str
    operation: str = ""
    access_key: str = ""
    account: str = ""
    path: str = ""
    body: bytes = b""


class Faults:
    """The rules in force, in the order in which they were given."""

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
        """Forget the rules whose fields are as given; all of them by default."""
        self._rules = [rule for rule in self._rules if any(str(getattr(rule, name)) != value for name, value in wanted.items())]

    def take(self, when: When, caller: Caller) -> list[Fault]:
        """Find what befalls this request now: any delays, and the first other fault."""
        taken: list[Fault] = []
        for rule in self._rules:
            if rule.when is when and not rule.spent and _fits(rule, caller) and rule.strikes():
                taken.append(rule)
                if rule.action is not Action.DELAY:
                    break
        return taken


def _fits(rule: Fault, caller: Caller) -> bool:
    exact = all(getattr(rule, name) in ("", getattr(caller, name)) for name in ("service", "operation", "access_key", "account"))
    return exact and rule.path in caller.path and rule.text.encode() in caller.body


def error_response(request: Request, status: int, code: str, message: str) -> Response:
    """Word an error as the called service does: JSON, the query protocol's XML, or S3's."""
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

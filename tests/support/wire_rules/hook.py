"""Capture every request of this process's clients, from botocore or direct, and check it against its service's rules."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

from botocore.client import BaseClient
from botocore.endpoint import Endpoint
from botocore.model import OperationModel, Shape

from mailer.adapters.transport.direct_calls import DirectCall
from support.wire_rules import dynamodb, model, others, sqs

_RULES = {
    "dynamodb": dynamodb.broken,
    "sqs": sqs.broken,
    "s3": others.s3,
    "events": others.events,
    "ses": others.ses,
    "sesv2": others.sesv2,
    "kms": others.kms,
    "sts": others.sts,
}
_NUMBERS = {"integer": int, "long": int, "float": float, "double": float}


@dataclass(frozen=True, slots=True)
class Breach:
    """A call that its service would reject."""

    call: str
    rule: str

    def __str__(self) -> str:
        return f"{self.call}: {self.rule}"


def breaches_of(operation: OperationModel, params: Mapping[str, Any]) -> list[Breach]:
    """Return the rules that a call breaks; a service's own are checked only if the call satisfies the model."""
    service = operation.service_model.service_name
    found = list(model.broken(params, operation.input_shape))
    if not found and service in _RULES:
        found = list(_RULES[service](operation.name, params))
    return [Breach(f"{service} {operation.name}", rule) for rule in found]


@contextmanager
def watched() -> Iterator[list[Breach]]:
    """Record every breach inside the block; the calls are made as usual."""
    breaches: list[Breach] = []
    client: Any = BaseClient
    send, build, send_directly = Endpoint.make_request, client._emit_api_params, DirectCall.send

    def send_direct(self: DirectCall, pattern: Any, credentials: Any, body: bytes) -> Any:
        breaches.extend(breaches_of(self.model, _read(self.model, body) or {}))
        return send_directly(self, pattern, credentials, body)

    def make_request(self: Endpoint, operation_model: OperationModel, request_dict: Any) -> Any:
        params = _read(operation_model, request_dict["body"])
        if params is not None:
            breaches.extend(breaches_of(operation_model, params))
        return send(self, operation_model, request_dict)

    def emit_api_params(self: BaseClient, api_params: Any, operation_model: OperationModel, context: Any) -> Any:
        built = build(self, api_params, operation_model, context)
        if _protocol(operation_model).startswith("rest"):  # their parameters are in path, query and headers; presigned URLs pass here too
            breaches.extend(breaches_of(operation_model, built))
        return built

    with (
        patch.object(Endpoint, "make_request", make_request),
        patch.object(BaseClient, "_emit_api_params", emit_api_params),
        patch.object(DirectCall, "send", send_direct),
    ):
        yield breaches


def _protocol(operation: OperationModel) -> str:
    return str(operation.service_model.metadata["protocol"])


def _read(operation: OperationModel, body: Any) -> Mapping[str, Any] | None:
    """Parse a serialized request; return None for protocols that use path, query and headers."""
    match _protocol(operation):
        case "json":
            read: Mapping[str, Any] = json.loads(body or b"{}")
            return read
        case "query" | "ec2":
            fields = {name: str(value) for name, value in body.items()} if isinstance(body, dict) else _form(body)
            return _structure(operation.input_shape, "", fields) if operation.input_shape else {}
        case _:
            return None


def _form(body: bytes | str) -> dict[str, str]:
    text = body.decode("ascii") if isinstance(body, bytes) else body
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


def _structure(shape: Shape, prefix: str, fields: Mapping[str, str]) -> dict[str, Any]:
    described: Any = shape
    return {
        name: _value(member, key, fields)
        for name, member in described.members.items()
        if _is_given(key := f"{prefix}{member.serialization.get('name', name)}", fields)
    }


def _is_given(key: str, fields: Mapping[str, str]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for name in fields)


def _value(shape: Shape, key: str, fields: Mapping[str, str]) -> Any:
    """Parse one value of the query protocol, in which `Tags.member.1.Name` is the name of the first tag."""
    described: Any = shape
    match shape.type_name:
        case "structure":
            return _structure(shape, f"{key}.", fields)
        case "list":
            stem = key if shape.serialization.get("flattened") else f"{key}.member"
            return [_value(described.member, f"{stem}.{number}", fields) for number in _numbers(stem, fields)]
        case "boolean":
            return fields[key] == "true"
        case kind if kind in _NUMBERS:
            return _NUMBERS[kind](fields[key])
        case _:
            return fields[key]


def _numbers(stem: str, fields: Mapping[str, str]) -> list[int]:
    found = {name.removeprefix(f"{stem}.").partition(".")[0] for name in fields if name.startswith(f"{stem}.")}
    return sorted(int(number) for number in found)

"""Check a call's parameters against botocore's model; botocore itself checks only types and required members."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.model import Shape
from botocore.validate import ParamValidator

_NUMBERS = ("integer", "long", "float", "double")
_UNREADABLE = re.compile(r"\\p\{|\\u10000-\\u10FFFF|\\uD800\\uDC00")
"""Marks of patterns for Java or UTF-16, which `re` interprets differently or not at all."""


def broken(params: Mapping[str, Any], shape: Shape | None) -> Iterator[str]:
    """Yield the violations of an operation's model."""
    if shape is None:
        return
    report = ParamValidator().validate(params, shape)
    if report.has_errors():
        yield report.generate_report().replace("\n", "; ")
        return
    yield from _walk(params, shape, "")


def _walk(value: Any, shape: Shape, path: str) -> Iterator[str]:
    yield from (f"{path or shape.name}: {fault}" for fault in _faults(value, shape))
    described: Any = shape
    match shape.type_name:
        case "structure":
            for name, member in value.items():
                yield from _walk(member, described.members[name], f"{path}.{name}".lstrip("."))
        case "list":
            for number, member in enumerate(value):
                yield from _walk(member, described.member, f"{path}[{number}]")
        case "map":
            for name, member in value.items():
                yield from _walk(name, described.key, f"{path} (key)")
                yield from _walk(member, described.value, f"{path}.{name}")


def _faults(value: Any, shape: Shape) -> Iterator[str]:
    constraints = shape.metadata
    size = len(value) if isinstance(value, str | bytes | list | dict) else value if shape.type_name in _NUMBERS else None
    if size is not None and "min" in constraints and size < constraints["min"]:
        yield f"{size} is less than {constraints['min']}"
    if size is not None and "max" in constraints and size > constraints["max"]:
        yield f"{size} is more than {constraints['max']}"
    if "enum" in constraints and value not in constraints["enum"]:
        yield "is not an allowed value"
    if (
        (pattern := constraints.get("pattern"))
        and shape.type_name == "string"
        and (regex := compiled(pattern))
        and not regex.fullmatch(value)
    ):
        yield f"does not match {pattern}"


@cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """Compile a pattern for a full match, as the services use it; return None if Python interprets it differently."""
    return None if _UNREADABLE.search(pattern) else re.compile(pattern)

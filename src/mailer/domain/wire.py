"""Parse untrusted JSON into frozen models; errors name each fault by its path and never show a value."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from mailer.domain.errors import Problem, RequestError

MAX_PROBLEMS = 100  # listed in one error; the others are only counted
MAX_VALUES = 5_000
"""JSON values in one body: strings, numbers, objects and lists; twice what the largest send request has."""
MAX_DEPTH = 16
"""Objects and lists inside each other; a send request has six."""

Path = tuple[str | int, ...]
type _Trail = tuple[_Trail | None, str | int, int]  # a path from its end, with its length: costs the same for a node at any depth


class WireModel(BaseModel):
    """Base model of all JSON in and out: frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,  # for our own code; `parse` takes the wire's names alone
        hide_input_in_errors=True,
    )

    SHAPE: ClassVar[str] = ""
    """The shape of the object in JSON, for the error where something else was given."""
    NOT_FIELDS: ClassVar[Mapping[str, str]] = {}
    """Error texts for fields that callers expect but this model does not have, by their path from it."""


def read[Model: WireModel](model: type[Model], body: str | bytes, *, at: Path = ()) -> Model:
    """Read a JSON object into a model; `at` is where the object stands in what the caller sent.

    Raises:
        RequestError: listing every fault by its path; nothing else, whatever the body.
    """
    return parse(model, *load_object(body), at=at)


def parse[Model: WireModel](
    model: type[Model], document: Mapping[str, object], unreadable: Iterable[Problem] = (), *, at: Path = ()
) -> Model:
    """Read a decoded object into a model; faults that were found while decoding are listed first.

    Raises:
        RequestError: listing every fault by its path.
    """
    coded = [("invalid_request", problem) for problem in unreadable]
    try:
        parsed = model.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        coded += to_problems(error.errors(include_url=False, include_input=False), document, model.NOT_FIELDS)
    else:
        if not coded:
            return parsed
    prefix = path(at, None)
    raise refusal((code, Problem(".".join(filter(None, (prefix, problem.path))), problem.problem)) for code, problem in coded)


def load_object(body: str | bytes) -> tuple[dict[str, object], list[Problem]]:
    """Decode a JSON object strictly; see `load`."""
    document, unreadable = load(body)
    if not isinstance(document, dict):
        raise RequestError([Problem("", "must be a JSON object")])
    return document, unreadable


def load(body: str | bytes, *, max_values: int = MAX_VALUES) -> tuple[object, list[Problem]]:
    """Decode JSON strictly; more than `max_values` values are refused before any of them is created.

    Returns the document, and the faults that leave it readable: names given twice (the last one counts), lone surrogates, and
    nesting that is too deep.

    Raises:
        RequestError: it is not JSON, or has too many values.
    """
    twice: list[dict[str, object]] = []

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice.append(found)
        return found

    try:
        text = body if isinstance(body, str) else body.decode("utf-8")
        if _has_more_values(text, max_values):
            raise RequestError([Problem("", f"must have at most {max_values} JSON values in all")])
        document = json.loads(text, object_pairs_hook=members, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # also invalid UTF-8, and integers of thousands of digits
        raise RequestError([Problem("", "must be JSON in UTF-8, of sane depth and numbers")]) from None
    return document, list(_text_faults(document, {id(found) for found in twice}))


def _has_more_values(text: str, most: int) -> bool:
    """Return whether JSON has more than `most` values, without creating any.

    Each value but the first follows one of `[`, `{` and `,`. Those inside strings are left out only if all together are too many.
    """
    if len(text) < 2 * most or _separators(text) < most:
        return False
    plain = text.replace(r"\\", "").replace(r"\"", "")
    # A value and its name are two strings, of two quotes each.
    return plain.count('"') > 4 * most or _separators("".join(plain.split('"')[::2])) >= most


def _separators(text: str) -> int:
    return sum(_count(text, separator) for separator in ",[{")


def _count(text: str, character: str) -> int:
    """Count a character that is rare in long text, such as base64: there `find` is ten times as fast as `count`."""
    at = -1
    for found in range(100):
        at = text.find(character, at + 1)
        if at < 0:
            return found
    return 100 + text.count(character, at + 1)


def refusal(coded: Iterable[tuple[str, Problem]]) -> RequestError:
    """Make the error of all faults: their common code, or `invalid_request` where they differ."""
    pairs = list(dict.fromkeys(coded))
    codes = {code for code, _ in pairs}
    problems = [problem for _, problem in pairs[:MAX_PROBLEMS]]
    if len(pairs) > MAX_PROBLEMS:
        problems.append(Problem("", f"and {len(pairs) - MAX_PROBLEMS} faults more"))
    return RequestError(problems, codes.pop() if len(codes) == 1 else "invalid_request")


def fault(problem: str, *at: Path, code: str = "invalid_request") -> PydanticCustomError:
    """Make the error a validator raises; `at` are paths from the model, where the fault is not the validated field itself."""
    return PydanticCustomError("fault", "{problem}", {"problem": problem, "found": [(place, problem) for place in at], "code": code})


def faults(found: Sequence[tuple[Path, str]]) -> PydanticCustomError:
    """Make the error of a validator that found several faults, each with its path from the model."""
    return PydanticCustomError("fault", "{problem}", {"problem": found[0][1], "found": found, "code": "invalid_request"})


def checked(find_fault: Callable[[str], str | None]) -> AfterValidator:
    """Make a validator from a function that returns what is wrong with a text, or None."""

    def check(text: str) -> str:
        if problem := find_fault(text):
            raise fault(problem)
        return text

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class _Matching(AfterValidator):
    """A validator that also tells the JSON schema what it takes."""

    pattern: str
    allowed: str
    longest: int

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = {**handler(schema), "description": self.allowed, "maxLength": self.longest}
        if "(?ai:" not in self.pattern:  # not in ECMA 262 before 2025
            described["pattern"] = f"^(?:{self.pattern})$".replace(r"\Z", "$")
        return described


def matching(pattern: str, allowed: str, *, longest: int) -> AfterValidator:
    """Make a validator for text that matches the whole pattern; `allowed` says in words what that is.

    `longest` is the most characters that the pattern can match; the pattern is not tried on longer text.
    """
    compiled = re.compile(pattern)
    check = checked(lambda text: None if len(text) <= longest and compiled.fullmatch(text) else f"must be {allowed}")
    return _Matching(check.func, pattern, allowed, longest)


@dataclass(frozen=True, slots=True)
class _AtMost(AfterValidator):
    """A validator of length that also tells the JSON schema."""

    longest: int

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "maxLength": self.longest}


def at_most(longest: int, because: str) -> AfterValidator:
    """Make a validator for long text of at most `longest` characters; more is `message_too_large`, and `because` says what to do.

    pydantic's own validator would encode the whole text as UTF-8 to count its characters.
    """

    def check(text: str) -> str:
        if len(text) > longest:
            raise fault(f"must have at most {longest} characters, {because}", code="message_too_large")
        return text

    return _AtMost(check, longest)


def _exactly_bool(value: object) -> object:
    if not isinstance(value, bool):
        raise fault("must be true or false")
    return value


STRICT_BOOL: Final = BeforeValidator(_exactly_bool)  # pydantic's lax mode takes "yes" and 1 too


_ALLOWED = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "string_unicode": "must be Unicode text without lone surrogates",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "union_tag_invalid": "must be one of {expected_tags}",
}


def to_problems(
    details: Iterable[ErrorDetails], document: object = None, not_fields: Mapping[str, str] = MappingProxyType({})
) -> list[tuple[str, Problem]]:
    """Map pydantic's errors to problems, each with its code; `document` is what it read, `not_fields` those of its model."""
    return [found for detail in details for found in _problems(detail, document, not_fields)]


def _problems(detail: ErrorDetails, document: object, not_fields: Mapping[str, str]) -> Iterable[tuple[str, Problem]]:
    context: dict[str, Any] = detail.get("ctx", {})
    if detail["type"] == "value_error":  # raised by a validator of ours
        return [("invalid_request", Problem(path(detail["loc"], document), str(context["error"])))]
    if detail["type"] != "fault":
        allowed = _ALLOWED.get(detail["type"], detail["msg"]).format_map(context)
        place = path(detail["loc"], document)
        if detail["type"] == "extra_forbidden":
            allowed = not_fields.get(place, allowed)
        elif shape := _shape(context.get("class_name")):
            allowed += f": {shape}"
        return [("invalid_request", Problem(place, allowed))]
    found = [(detail["loc"][:-1] + place, problem) for place, problem in context["found"]] or [(detail["loc"], context["problem"])]
    return [(context["code"], Problem(path(place, document), problem)) for place, problem in found]


def _shape(class_name: str | None) -> str:
    """Return the shape of the model that pydantic names in its error."""
    return next((model.SHAPE for model in WireModel.__subclasses__() if model.__name__ == class_name), "") if class_name else ""


_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,75}")


def path(location: Path, document: object) -> str:
    """Write a location as `message.to[0].email`; a name that is not a plain word is shown as `?`, because it may be someone's data."""
    written = ""
    for step in location:
        if isinstance(step, int):
            if document is None or isinstance(document, list):  # an object may be given instead of a list of one
                written += f"[{step}]"
                document = document[step] if isinstance(document, list) and step < len(document) else None
        elif step != "[key]":  # pydantic's mark for "the name itself"
            name = step if _PLAIN_KEY.fullmatch(step) else "?"
            written += f".{name}" if written else name
            document = document.get(step) if isinstance(document, Mapping) else None
    return written


def _text_faults(document: object, twice: set[int]) -> Iterable[Problem]:
    """Find repeated names, text that UTF-8 cannot carry and too deep nesting in the whole document, without recursion."""
    todo: list[tuple[_Trail | None, object]] = [(None, document)]
    while todo:
        trail, node = todo.pop()
        if isinstance(node, str):
            if not _is_unicode(node):
                yield Problem(path(_location(trail), document), "must be Unicode text without lone surrogates")
        elif isinstance(node, dict | list) and (depth := trail[2] if trail else 0) >= MAX_DEPTH:
            yield Problem(path(_location(trail), document), f"must have at most {MAX_DEPTH} objects and lists inside each other")
        elif isinstance(node, dict):
            if id(node) in twice:
                yield Problem(path(_location(trail), document), "must not give a name twice")
            if not all(map(_is_unicode, node)):
                yield Problem(path(_location(trail), document), "must have names without lone surrogates")
            todo.extend([((trail, name, depth + 1), value) for name, value in node.items()])
        elif isinstance(node, list):
            todo.extend([((trail, index, depth + 1), value) for index, value in enumerate(node)])


def _location(trail: _Trail | None) -> Path:
    steps: list[str | int] = []
    while trail:
        trail, step, _ = trail
        steps.append(step)
    return tuple(reversed(steps))


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> object:
    raise ValueError(name)  # NaN and Infinity are not JSON

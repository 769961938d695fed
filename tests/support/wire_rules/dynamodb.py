"""DynamoDB's rules: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html and …/Limits.html."""

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from moto.dynamodb.parsing.reserved_keywords import ReservedKeywords

from support.aws import tables

MAX_ITEM = 400 * 1024  # bytes
MAX_KEY = {"HASH": 2048, "RANGE": 1024}  # bytes
MAX_NESTING = 32
MAX_EXPRESSION = 4096  # bytes
MAX_OPERATORS = 300
MAX_OPERANDS = 100  # of one IN
MAX_DIGITS = 38
MAX_MAGNITUDE, MIN_MAGNITUDE = Decimal("9.9999999999999999999999999999999999999E+125"), Decimal("1E-130")
BATCH_GET, TRANSACTION = 100, 100

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_EXPRESSIONS = ("KeyConditionExpression", "ConditionExpression", "FilterExpression", "ProjectionExpression", "UpdateExpression")
_TOKEN = re.compile(r"(?P<placeholder>[#:]\w+)|(?P<word>[A-Za-z_]\w*)(?P<call>\s*\()?|(?P<operator><>|<=|>=|[=<>+-])")
_KEYWORDS = frozenset({"SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "IN", "BETWEEN"})
_ASSIGNED = re.compile(r"([#\w.]+)\s*=\s*(:\w+)")
_IN = re.compile(r"\bIN\s*\(([^)]*)\)")

Item = Mapping[str, Any]


def broken(operation: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules that a call breaks."""
    for name in ("Key", "ExclusiveStartKey"):
        yield from _key(params.get(name, {}))
    for name in ("Item", "ExpressionAttributeValues"):
        for attribute, value in params.get(name, {}).items():
            yield from (f"{name}.{attribute}: {fault}" for fault in value_faults(value))
    if "Item" in params:
        yield from _item(params["Item"])
    yield from _expressions(params)
    if operation == "BatchGetItem":
        yield from _batch_get(params["RequestItems"])
    if operation.startswith("Transact"):
        yield from _transaction(params["TransactItems"])


# -- values --------------------------------------------------------------------------------------------------------------


def value_faults(value: Item, depth: int = 1) -> Iterator[str]:
    """Yield the errors of an attribute value."""
    if len(value) != 1:
        yield f"has {len(value)} types"
        return
    if depth > MAX_NESTING:
        yield f"is nested more than {MAX_NESTING} levels deep"
        return
    [(kind, content)] = value.items()
    match kind:
        case "N":
            yield from _number_faults(content)
        case "SS" | "NS" | "BS":
            yield from _set_faults(kind, content)
        case "L":
            for member in content:
                yield from value_faults(member, depth + 1)
        case "M":
            for member in content.values():
                yield from value_faults(member, depth + 1)


def _number_faults(text: Any) -> Iterator[str]:
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        yield f"{text!r} is not a finite number"
        return
    number = Decimal(text)
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if len(digits) > MAX_DIGITS:
        yield f"{text} has more than {MAX_DIGITS} significant digits"
    if number and not MIN_MAGNITUDE <= abs(number) <= MAX_MAGNITUDE:
        yield f"{text} is too large or too small"


def _set_faults(kind: str, members: Any) -> Iterator[str]:
    if not members:
        yield "is an empty set"
    if len(set(members)) != len(members):
        yield "is a set with a duplicate"
    if kind == "NS":
        for member in members:
            yield from _number_faults(member)


def size_of(value: Item) -> int:
    """Return the approximate size of a value in an item, in bytes."""
    [(kind, content)] = value.items()
    return _SIZES[kind](content)


_SIZES: Mapping[str, Callable[[Any], int]] = {
    "S": lambda text: len(text.encode()),
    "N": lambda text: len(text) // 2 + 1,
    "B": lambda octets: len(b64decode(octets)),
    "SS": lambda members: sum(len(text.encode()) for text in members),
    "NS": lambda members: sum(len(text) // 2 + 1 for text in members),
    "BS": lambda members: sum(len(b64decode(octets)) for octets in members),
    "L": lambda members: 3 + sum(1 + size_of(member) for member in members),
    "M": lambda members: 3 + sum(1 + len(name.encode()) + size_of(member) for name, member in members.items()),
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
}


# -- keys and items ------------------------------------------------------------------------------------------------------


@cache
def key_attributes() -> Mapping[str, str]:
    """Return the key attributes of our tables and indexes, and whether each is a partition or sort key."""
    found: dict[str, str] = {}
    for table in tables.resources("AWS::DynamoDB::Table").values():
        schemas = [table["Properties"], *table["Properties"].get("GlobalSecondaryIndexes", [])]
        for part in (part for schema in schemas for part in schema["KeySchema"]):
            if found.get(part["AttributeName"]) != "RANGE":  # the stricter of the two
                found[part["AttributeName"]] = part["KeyType"]
    return found


def _key(key: Item) -> Iterator[str]:
    for attribute, value in key.items():
        yield from _key_value(attribute, value, key_attributes().get(attribute, "HASH"))


def _key_value(attribute: str, value: Item, kind: str) -> Iterator[str]:
    yield from (f"key {attribute}: {fault}" for fault in value_faults(value))
    if not value.keys() <= {"S", "N", "B"}:
        yield f"key {attribute}: is neither string, number nor binary"
    elif value in ({"S": ""}, {"B": ""}):
        yield f"key {attribute}: is empty"
    elif size_of(value) > MAX_KEY[kind]:
        yield f"key {attribute}: takes more than {MAX_KEY[kind]} bytes"


def _item(item: Item) -> Iterator[str]:
    yield from _key({name: value for name, value in item.items() if name in key_attributes()})
    if (size := sum(len(name.encode()) + size_of(value) for name, value in item.items() if len(value) == 1)) > MAX_ITEM:
        yield f"the item takes {size} bytes, more than {MAX_ITEM}"


# -- expressions ---------------------------------------------------------------------------------------------------------


def _expressions(params: Mapping[str, Any]) -> Iterator[str]:
    found = {name: params[name] for name in _EXPRESSIONS if name in params}
    used: set[str] = set()
    operators = 0
    for name, expression in found.items():
        if len(expression.encode()) > MAX_EXPRESSION:
            yield f"{name}: takes more than {MAX_EXPRESSION} bytes"
        for token in _TOKEN.finditer(expression):
            if placeholder := token["placeholder"]:
                used.add(placeholder)
            operators += bool(token["operator"] or token["call"] or token["word"] in ("AND", "OR", "NOT", "IN", "BETWEEN"))
            if token["word"] and not token["call"] and token["word"].upper() in _reserved() and token["word"] not in _KEYWORDS:
                yield f"{name}: {token['word']} is a reserved word"
        for listed in _IN.findall(expression):
            if listed.count(",") >= MAX_OPERANDS:
                yield f"{name}: more than {MAX_OPERANDS} operands of IN"
    if operators > MAX_OPERATORS:
        yield f"{operators} operators, more than {MAX_OPERATORS}"
    yield from _placeholders(params, used)
    yield from _update(params)


def _placeholders(params: Mapping[str, Any], used: set[str]) -> Iterator[str]:
    for name, sign in (("ExpressionAttributeNames", "#"), ("ExpressionAttributeValues", ":")):
        given = params.get(name)
        if given == {}:
            yield f"{name}: is empty"
        wanted = {placeholder for placeholder in used if placeholder[0] == sign}
        if unused := sorted(set(given or ()) - wanted):
            yield f"{name}: {', '.join(unused)} unused"
        if undefined := sorted(wanted - set(given or ())):
            yield f"{name}: {', '.join(undefined)} undefined"


def _update(params: Mapping[str, Any]) -> Iterator[str]:
    """Check the values that an update sets: each attribute once, keys of indexes as keys, all within an item's size."""
    update = params.get("UpdateExpression", "")
    names, values = params.get("ExpressionAttributeNames", {}), params.get("ExpressionAttributeValues", {})
    for path, value in _ASSIGNED.findall(update):
        if (attribute := names.get(path, path)) in key_attributes() and value in values:
            yield from _key_value(attribute, values[value], key_attributes()[attribute])
    for path, times in Counter(names.get(path, path) for path in _changed(update)).items():
        if times > 1:
            yield f"UpdateExpression: {path} is changed {times} times"
    if (size := sum(size_of(value) for value in values.values() if len(value) == 1)) > MAX_ITEM:
        yield f"the values take {size} bytes, more than an item of {MAX_ITEM}"


def _changed(update: str) -> Iterator[str]:
    """Yield the paths that an update changes."""
    flat = re.sub(r"\([^()]*\)", "", update)
    for clause, actions in re.findall(r"\b(SET|REMOVE|ADD|DELETE)\b(.*?)(?=\b(?:SET|REMOVE|ADD|DELETE)\b|$)", flat):
        for action in actions.split(","):
            yield re.split(r"=" if clause == "SET" else r"\s", action.strip())[0].strip()


@cache
def _reserved() -> frozenset[str]:
    return frozenset(word.upper() for word in ReservedKeywords.get_reserved_keywords())


# -- several items -------------------------------------------------------------------------------------------------------


def _batch_get(wanted: Mapping[str, Any]) -> Iterator[str]:
    keys = [(table, key) for table, request in wanted.items() for key in request["Keys"]]
    if len(keys) > BATCH_GET:
        yield f"{len(keys)} keys, more than {BATCH_GET}"
    if len({(table, str(sorted(key.items()))) for table, key in keys}) < len(keys):
        yield "a key is requested twice"
    for _, key in keys:
        yield from _key(key)


def _transaction(actions: Any) -> Iterator[str]:
    if len(actions) > TRANSACTION:
        yield f"{len(actions)} actions, more than {TRANSACTION}"
    for action in actions:
        [part] = action.values()
        yield from broken("", part)

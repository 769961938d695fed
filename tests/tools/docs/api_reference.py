"""Generate the tables of docs/api.md, and docs/openapi.json, from the code: `python -m tools.docs.api_reference` writes them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mailer.handlers.messages import api_document
from mailer.handlers.rest import reference
from mailer.handlers.rest.api import ALWAYS
from mailer.handlers.rest.openapi import described_bodies
from tools.docs.error_tables import codes_table

REGENERATE = "docs are not what the code says: PYTHONPATH=src:tests .venv/bin/python -m tools.docs.api_reference"

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE, DOCUMENT = DOCS / "api.md", DOCS / "openapi.json"

REQUEST = ("PostedRequest", "EmailMessage", "Mailbox", "Attachment", "S3Object", "Calendar", "ListUnsubscribe")
RECORD = ("StatusRecord", "Error", "Feedback", "RecipientFeedbackRecord", "ResolutionRecord")
PROVIDER = ("ProviderRecord",)
STATISTICS = ("StatisticsAnswer", "StatisticsBucket", "AccountStatistics")
SHOWN = {*REQUEST, *RECORD, *STATISTICS, *PROVIDER}
"""Schemas with a table, each under a heading with its name; the first of a group is under the heading of the group."""

ANSWERED = {*RECORD, *STATISTICS, *PROVIDER}
"""Schemas of responses: a field that is always present is not a required one."""

CONFIGS = {"AccessKeyConfig": "with an access key", "RoleConfig": "with a role"}

_LIMITS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "maxItems": "at most {}",
    "maxProperties": "at most {}",
}
_ALLOWED = " Allowed: "
_WIDTH = 120  # characters

Row = tuple[str, ...]


# -- fields --------------------------------------------------------------------------------------------------------------


def tables(names: Iterable[str]) -> str:
    """Return the tables of schemas: the first without a heading, the others under their names."""
    first, *others = names
    return "\n\n".join([fields_table(first), *(f"### {name}\n\n{fields_table(name)}" for name in others)])


def fields_table(name: str) -> str:
    """Return the table of a schema's fields."""
    return _table(("field", "type", "what it is"), fields(name))


def fields(name: str) -> Iterator[Row]:
    """Yield a row per field of a schema: name, type with limits, description."""
    schema = dict(described_bodies(api_document()))[name]
    for field, kind in schema["properties"].items():
        needed = field in schema.get("required", [])
        said = f"`{field}`{' (required)' if needed and name not in ANSWERED else ''}"
        yield said, _type(kind), kind["description"].partition(_ALLOWED)[0]


def configs_table() -> str:
    """Return one table for both kinds of SES config: the common fields, then those of one kind."""
    kinds = {name: dict.fromkeys(fields(name)) for name in CONFIGS}
    shared = [row for row in kinds["AccessKeyConfig"] if row in kinds["RoleConfig"]]
    own = [(row[0].replace("(required)", f"({CONFIGS[name]})"), *row[1:]) for name in CONFIGS for row in kinds[name] if row not in shared]
    return _table(("field", "type", "what it is"), [*shared, *own])


def _type(field: Mapping[str, Any]) -> str:
    # The description is another column; allowed values are described by the text of the pattern.
    own = {**field, "description": field["description"].partition(_ALLOWED)[2].removesuffix(".")}
    kinds = field.get("anyOf", [own])
    said = " or ".join(_one_type(kind) for kind in kinds if kind != {"type": "null"})
    null = " or `null`" if {"type": "null"} in kinds else ""
    return said + null + (f"; default `{json.dumps(field['default'])}`" if field.get("default") not in (None, []) else "")


def _one_type(kind: Mapping[str, Any]) -> str:
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name in SHOWN else _one_type(api_document()["components"]["schemas"][name])
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    name = {"date-time": "RFC 3339 time"}.get(kind.get("format", ""), kind["type"])
    if kind["type"] == "array":
        name = f"list of {_one_type(kind['items'])}"
    return ": ".join(filter(None, (name, _limits(kind))))


def _limits(kind: Mapping[str, Any]) -> str:
    """Return the description of a pattern, which is more specific than a length, or else the limits."""
    if kind.get("description") and "properties" not in kind:
        return str(kind["description"])
    return ", ".join(text.format(_number(kind[limit])) for limit, text in _LIMITS.items() if limit in kind)


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}".replace(",", " ")


# -- routes and examples -------------------------------------------------------------------------------------------------


def routes_table() -> str:
    """Return the table of routes: what each does, and its status codes besides those of all routes."""
    operations = [(f"{method.upper()} {path}", o) for path, methods in api_document()["paths"].items() for method, o in methods.items()]
    return _table(("call", "does", "answers"), [(f"`{call}`", o["summary"], _statuses(o)) for call, o in operations])


def _statuses(operation: Mapping[str, Any]) -> str:
    own = sorted(set(operation["responses"]) - {str(status.value) for status in ALWAYS})
    return f"**{own[0]}** {' '.join(own[1:])}".rstrip()


def _json(value: Any) -> str:
    return f"```json\n{_laid_out(value)}\n```"


def _laid_out(value: Any, indent: int = 0) -> str:
    """Format JSON with each object and list on one line if it fits."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= _WIDTH or not isinstance(value, dict | list):
        return line
    begin, end = ("{", "}") if isinstance(value, dict) else ("[", "]")
    members = value.items() if isinstance(value, dict) else (("", item) for item in value)
    inner = " " * (indent + 2)
    lines = [f"{inner}{name and json.dumps(name) + ': '}{_laid_out(item, indent + 2)}" for name, item in members]
    return f"{begin}\n{',\n'.join(lines)}\n{' ' * indent}{end}"


def _table(head: Row, rows: Iterable[Row]) -> str:
    whole = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in whole)


# -- the page ------------------------------------------------------------------------------------------------------------

SECTIONS: Mapping[str, Callable[[], str]] = {
    "whole request": lambda: _json(reference.WHOLE["sendMessage"]),
    "request": lambda: tables(REQUEST),
    "record": lambda: tables(RECORD),
    "statistics": lambda: tables(STATISTICS),
    "routes": routes_table,
    "problem": lambda: _json(reference.PROBLEM),
    "codes": codes_table,
    "provider config": configs_table,
    "smtp config": lambda: fields_table("SmtpConfig"),
    "provider record": lambda: tables(PROVIDER),
}
"""Generated sections of docs/api.md, by the name of their markers."""


def filled(page: str) -> str:
    """Return the page with every section generated between its markers."""
    for name, made in SECTIONS.items():
        begin, end = f"<!-- {name}: made by tests/tools/docs/api_reference.py -->", f"<!-- {name} end -->"
        head, _, rest = page.partition(begin)
        _, found, tail = rest.partition(end)
        assert found, f"{PAGE} lacks the markers of {name}"
        page = f"{head}{begin}\n\n{made()}\n\n{end}{tail}"
    return page


def openapi_json() -> str:
    """Return the OpenAPI document as it is committed."""
    return json.dumps(api_document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    DOCUMENT.write_text(openapi_json(), encoding="utf-8")

"""The tables of fields in docs/api.md, and docs/openapi.json, made of the OpenAPI document.

`PYTHONPATH=src:tests python tests/api_reference.py` writes them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mailer.handlers.openapi import described_bodies, document

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, DOCUMENT = DOCS / "api.md", DOCS / "openapi.json"
BEGIN, END = "<!-- fields: made by tests/api_reference.py -->", "<!-- fields end -->"

TABLES = {
    "A send request": "PostedRequest",
    "`message`": "EmailMessage",
    "A mailbox: `to`, `cc`, `bcc`, `replyTo`": "Mailbox",
    "`attachments`": "Attachment",
    "`attachments[].s3`": "S3Object",
    "`calendar`": "Calendar",
    "`listUnsubscribe`": "ListUnsubscribe",
    "A status record": "StatusRecord",
    "`error`": "Error",
    "`resolution`": "Settlement",
    "A provider's `config`: access key": "AccessKeyConfig",
    "A provider's `config`: role": "RoleConfig",
    "A provider's `config`: SMTP, on development stacks": "SmtpConfig",
    "A provider record": "ProviderRecord",
    "`candidate`": "Config",
}
"""What docs/api.md shows, by heading."""

ANSWERED = {"StatusRecord", "Error", "Settlement", "ProviderRecord", "Config"}
"""What callers read: a field that is always there is not one that they must give."""

_LIMITS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {:g}",
    "maximum": "at most {:g}",
    "maxItems": "at most {}",
    "maxProperties": "at most {}",
}


def fields(schema: Mapping[str, Any], *, is_sent: bool) -> Iterator[tuple[str, str, str]]:
    """Each field of a schema: its name, its type with its limits, what it is."""
    for name, field in schema["properties"].items():
        needed = " (required)" if is_sent and name in schema.get("required", []) else ""
        yield f"`{name}`{needed}", _type(field), field["description"]


def _type(field: Mapping[str, Any]) -> str:
    # A field's own description is told beside it.
    kinds = [kind for kind in field.get("anyOf", [{**field, "description": ""}]) if kind != {"type": "null"}]
    said = " or ".join(_one_type(kind) for kind in kinds)
    return said + (f"; default `{json.dumps(field['default'])}`" if field.get("default") not in (None, []) else "")


def _one_type(kind: Mapping[str, Any]) -> str:
    if "$ref" in kind:
        return f"`{kind['$ref'].rpartition('/')[2]}`"
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    name = {"date-time": "RFC 3339 time"}.get(kind.get("format", ""), kind["type"])
    if kind["type"] == "array":
        name = f"list of {_one_type(kind['items'])}"
    # A pattern's words say more than its length.
    limits = [said] if (said := kind.get("description")) else [text.format(kind[limit]) for limit, text in _LIMITS.items() if limit in kind]
    return ": ".join(filter(None, (name, ", ".join(limits))))


def fields_tables() -> str:
    """Every table, each under its heading."""
    schemas = dict(described_bodies(document()))
    return "\n\n".join(
        f"### {heading}\n\n{_table(fields(schemas[name], is_sent=name not in ANSWERED))}" for heading, name in TABLES.items()
    )


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    whole = [("field", "type", "what it is"), ("---",) * 3, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in whole)


def filled(page: str) -> str:
    """Return the page with the tables made anew between their marks."""
    head, _, rest = page.partition(BEGIN)
    _, found, tail = rest.partition(END)
    assert found, f"{PAGE} lacks its marks"
    return f"{head}{BEGIN}\n\n{fields_tables()}\n\n{END}{tail}"


def openapi_json() -> str:
    """The OpenAPI document as it is committed."""
    return json.dumps(document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    DOCUMENT.write_text(openapi_json(), encoding="utf-8")

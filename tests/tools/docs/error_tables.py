"""Generate the table of error codes from the code; tests/tools/docs/api_reference.py writes it to docs/api.md."""

import json
from collections.abc import Iterator
from http import HTTPStatus

from mailer.domain.errors import CODES, ErrorClass
from mailer.handlers.rest.problem import HINTS, STATUS
from support.aws import tables
from tools.docs import provider_matrix

ON_RECORDS = {
    ErrorClass.FAILED: "`failed`",
    ErrorClass.TENANT: "`deferred`; counts towards suspension",
    ErrorClass.DEFERRED: "`deferred`",
    ErrorClass.UNKNOWN: "`unknown`",
    ErrorClass.API: "–",
}
"""Status of a request, by the class of its error."""

OTHERWISE = {
    "provider_not_configured": "`failed`",
    "provider_not_active": "`failed` where no config was ever verified; `deferred` while the provider is disabled",
    "reputation_at_risk": "`deferred` while the provider is suspended",
    "processing_crashed": "open as before; its message is in the dead-letter queue",
}
"""Codes whose requests are an exception to that."""


def codes_table() -> str:
    """Return the table of codes: status of a request with it, statuses of responses with it, hint."""
    rows = [("code", "on a record", "in an answer", "hint"), ("---",) * 4]
    rows += [
        (f"`{code}`", OTHERWISE.get(code, ON_RECORDS[row.error_class]), ", ".join(_answers(code)) or "–", _hint(code))
        for code, row in CODES.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _hint(code: str) -> str:
    """Return the hint of a code; if answers have another one than records, both."""
    return CODES[code].hint + (f" In an answer: {HINTS[code]}" if code in HINTS else "")


def _answers(code: str) -> Iterator[str]:
    """Yield the statuses of responses with a code: those of our handlers, of verify, and of API Gateway itself."""
    met_by_verify = {fault.code for fault in provider_matrix.FAULTS}
    ours = {STATUS.get(code, HTTPStatus.UNPROCESSABLE_ENTITY).value} if code in STATUS or code in met_by_verify else set()
    yield from map(str, sorted(ours | {status for status, given in _by_the_gateway() if given == code}))


def _by_the_gateway() -> set[tuple[int, str]]:
    """Return each status that API Gateway itself returns, with its code in the template."""
    responses = tables.template()["Resources"]["Api"]["Properties"]["GatewayResponses"].values()
    return {
        (
            response["StatusCode"],
            json.loads(response["ResponseTemplates"]["application/json"].replace("$context.error.messageString", '""'))["code"],
        )
        for response in responses
    }

"""The table of error codes, made of the codes; docs/api.md has it (tests/tools/docs/api_reference.py writes it there)."""

import json
from collections.abc import Iterator
from http import HTTPStatus

from mailer.domain.errors import CODES, ErrorClass
from mailer.handlers.rest.problem import STATUS
from support.aws import tables
from tools.docs import provider_matrix

ON_RECORDS = {
    ErrorClass.FAILED: "`failed`",
    ErrorClass.TENANT: "`deferred`; counts towards suspension",
    ErrorClass.DEFERRED: "`deferred`",
    ErrorClass.UNKNOWN: "`unknown`",
    ErrorClass.API: "–",
}
"""What becomes of a request, by the kind of its error."""

OTHERWISE = {
    "provider_not_configured": "`failed`",
    "provider_not_active": "`failed` where no config was ever verified; `deferred` while the provider is disabled",
    "reputation_at_risk": "`deferred` while the provider is suspended",
    "processing_crashed": "open as before; its message is in the dead-letter queue",
}
"""Codes whose requests fare otherwise than their kind says."""


def codes_table() -> str:
    """Every code: what becomes of a request that has it, the statuses of answers that have it, and its hint."""
    rows = [("code", "on a record", "in an answer", "hint"), ("---",) * 4]
    rows += [
        (f"`{code}`", OTHERWISE.get(code, ON_RECORDS[row.error_class]), ", ".join(_answers(code)) or "–", row.hint)
        for code, row in CODES.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _answers(code: str) -> Iterator[str]:
    """Yield the statuses of answers with a code: ours, API Gateway's own, and those of what the tenant's account said to a verify."""
    met_by_verify = {fault.code for fault in provider_matrix.FAULTS}
    ours = {STATUS.get(code, HTTPStatus.UNPROCESSABLE_ENTITY).value} if code in STATUS or code in met_by_verify else set()
    yield from map(str, sorted(ours | {status for status, given in _by_the_gateway() if given == code}))


def _by_the_gateway() -> set[tuple[int, str]]:
    """Return each status that API Gateway itself answers, with the code that the template gives it."""
    responses = tables.template()["Resources"]["Api"]["Properties"]["GatewayResponses"].values()
    return {
        (
            response["StatusCode"],
            json.loads(response["ResponseTemplates"]["application/json"].replace("$context.error.messageString", '""'))["code"],
        )
        for response in responses
    }

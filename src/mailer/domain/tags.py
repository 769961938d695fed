"""Tag each message so that an event of SES finds its record, and read that back: tenant, request, attempt, correlation id.

SES takes letters, digits, `_` and `-` in a tag (API reference, MessageTag), and shows them with each event of a configuration set.
"""

import re
from collections.abc import Mapping

OWN_TAGS = 4
"""Tags that are added to those of the caller."""

RESERVED = "tenantmail-"
"""How the names of our tags begin; callers' tags must not, as an event of SES would then tell of another mail, or of none."""

TENANT, REQUEST, ATTEMPT, VERIFY = "tenantmail-tenant", "tenantmail-request", "tenantmail-attempt", "tenantmail-verify"
CORRELATION, SIMULATION = "tenantmail-correlation", "tenantmail-simulation"

_ESCAPES = str.maketrans({"_": "__", ".": "_d", ":": "_c"})
_ESCAPED = {"__": "_", "_d": ".", "_c": ":"}


_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def tagged(
    tags: Mapping[str, str], *, tenant_id: str, request_id: str, attempt: int, correlation_id: str | None = None
) -> Mapping[str, str]:
    """Add our tags to a caller's, of which those with a reserved name are left out.

    A requestId may hold what a tag may not: `_` stands for itself as `__`, `.` as `_d`, `:` as `_c`. So may a correlation id; one that a
    producer made of other characters is not told.
    """
    correlation = {CORRELATION: correlation_id.translate(_ESCAPES)} if correlation_id and _ID.fullmatch(correlation_id) else {}
    return {
        **{name: value for name, value in tags.items() if not name.startswith(RESERVED)},
        **correlation,
        TENANT: tenant_id,
        REQUEST: request_id.translate(_ESCAPES),
        ATTEMPT: str(attempt),
    }


def verify_tags(tenant_id: str, version: int, simulation: int | None = None) -> Mapping[str, str]:
    """Tag a mail of `verify`, which no request is behind: whose config it tests, of which version, and in which simulation it plays."""
    part_of = {} if simulation is None else {SIMULATION: str(simulation)}
    return {TENANT: tenant_id, VERIFY: str(version), **part_of}


def request_id_of(tag: str) -> str | None:
    """Return the requestId that a tag stands for; None where we write no such tag."""
    if not re.fullmatch(r"(?:[A-Za-z0-9-]|_[_dc])+", tag):
        return None
    return re.sub(r"_[_dc]", lambda escape: _ESCAPED[escape[0]], tag)

"""Tag each message with what one of SES's events needs to find its record: whose it is, which request, which attempt.

SES takes letters, digits, `_` and `-` in a tag (API reference, MessageTag), and shows them with each event of a configuration set.
"""

from collections.abc import Mapping

OWN_TAGS = 3
"""Tags that are added to those of the caller."""

_ESCAPES = str.maketrans({"_": "__", ".": "_d", ":": "_c"})


def tagged(tags: Mapping[str, str], *, tenant_id: str, request_id: str, attempt: int) -> Mapping[str, str]:
    """Add ours to a caller's tags; where one has the name of ours, ours counts.

    A requestId may hold what a tag may not: `_` stands for itself as `__`, `.` as `_d`, `:` as `_c`.
    """
    return {
        **tags,
        "tenantmail-tenant": tenant_id,
        "tenantmail-request": request_id.translate(_ESCAPES),
        "tenantmail-attempt": str(attempt),
    }

"""The calls of the suppressions API, by name."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from mailer_client.connection import ApiClient, tenant_path
from mailer_client.models import (
    LiftedSuppression,
    SuppressionBatchAnswer,
    SuppressionList,
    SuppressionReason,
    SuppressionRecord,
    parse,
)


class SuppressionsClient(ApiClient):
    """Tenants' suppressed addresses, for one caller; every method takes the tenant."""

    def list(self, tenant_id: str, *, reason: SuppressionReason | None = None) -> Iterator[SuppressionRecord]:
        """Yield suppressed addresses, newest first; pages are fetched as needed."""
        for page in self._api.pages(tenant_path(tenant_id, "suppressions"), {"reason": reason} if reason else {}):
            yield from parse(SuppressionList, page).suppressions

    def get(self, tenant_id: str, email: str) -> SuppressionRecord:
        """Return why an address is suppressed.

        Raises:
            ApiError: `not_found`: it is not suppressed.
        """
        return parse(SuppressionRecord, self._api.call("GET", _path(tenant_id, email)))

    def put(self, tenant_id: str, email: str, *, why: str, expires_at: datetime | None = None) -> SuppressionRecord:
        """Suppress an address, until `expires_at` or until it is lifted; return the suppression in force, SES's if that is stronger.

        Raises:
            ApiError: `provider_not_configured`; `invalid_request`, also if `expires_at` has passed.
        """
        return parse(SuppressionRecord, self._api.call("PUT", _path(tenant_id, email), _word(why, expires_at)))

    def delete(self, tenant_id: str, email: str, *, why: str | None = None) -> LiftedSuppression:
        """Lift the suppression of an address; return what was lifted, and whether the address may be on SES's own list.

        Raises:
            ApiError: `suppressed_again`: it was suppressed again meanwhile; `not_found`: it is not suppressed, also after a successful
                call whose response was lost.
        """
        query = f"?{urlencode({'why': why})}" if why else ""
        return parse(LiftedSuppression, self._api.call("DELETE", _path(tenant_id, email) + query))

    def put_batch(self, tenant_id: str, addresses: Sequence[Mapping[str, Any]]) -> Sequence[SuppressionBatchAnswer]:
        """Suppress up to 100 addresses, each as in JSON: `email`, `why`, `expiresAt`; return the answers in the same order.

        Raises:
            ApiError: `provider_not_configured`; `invalid_request`: the list as a whole cannot be read.
        """
        answers = self._api.call("POST", tenant_path(tenant_id, "suppressions", "batch"), [dict(one) for one in addresses])
        return [parse(SuppressionBatchAnswer, answer) for answer in answers]


def _path(tenant_id: str, email: str) -> str:
    return tenant_path(tenant_id, "suppressions", email)


def _word(why: str, expires_at: datetime | None) -> Mapping[str, str]:
    return {"why": why} | ({"expiresAt": expires_at.astimezone(UTC).isoformat()} if expires_at else {})

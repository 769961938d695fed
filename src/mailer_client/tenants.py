"""The API's calls about tenants and statistics, by name."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlencode

from mailer_client.connection import ApiClient, tenant_path
from mailer_client.models import StatisticsAnswer, TenantPage, TenantRecord, parse


class TenantsClient(ApiClient):
    """All tenants with their providers, and tenants' statistics, for one caller."""

    def list(self, *, status: Literal["unverified", "active", "disabled", "suspended"] | None = None) -> Iterator[TenantRecord]:
        """Yield tenants, by status and then by name; pages are fetched as needed. Callers need a separate right."""
        for page in self._api.pages("/tenants", {"status": status} if status else {}):
            yield from parse(TenantPage, page).tenants

    def statistics(
        self, tenant_id: str, *, since: datetime | None = None, until: datetime | None = None, by: Literal["hour", "day"] = "hour"
    ) -> StatisticsAnswer:
        """Return counts of recipients by outcome, by hours or days of UTC; by default of the last 24 hours, or 30 days.

        Raises:
            ApiError: `invalid_request`: `since` is not before `until`, or one of them is more than 90 days ago.
        """
        bounds = {"from": since, "to": until}
        query = {"by": by} | {name: moment.astimezone(UTC).isoformat() for name, moment in bounds.items() if moment}
        return parse(StatisticsAnswer, self._api.call("GET", f"{tenant_path(tenant_id, 'statistics')}?{urlencode(query)}"))

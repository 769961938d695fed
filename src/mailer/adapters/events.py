"""Tell other systems on EventBridge what happened to a tenant's provider."""

import json
from collections.abc import Callable
from typing import Any

from mailer.ports import ProviderChange

SOURCE = "tenantmail"
DETAIL_TYPE = "Provider Changed"
VERSION = "1"
"""Of the detail: raised when a field changes its meaning or goes away, not when one is added."""


class EventBridgeEvents:
    """`ports.Events` on EventBridge; what fails is reported and never reaches the caller."""

    def __init__(self, client: Callable[[], Any], bus: str, report: Callable[[Exception], None]) -> None:
        """`client` is opened with the first event."""
        self._client = client
        self._bus = bus
        self._report = report

    def provider_changed(self, change: ProviderChange) -> None:
        """Put one event on the bus."""
        entry: Any = {"EventBusName": self._bus, "Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": json.dumps(detail(change))}
        try:
            answer = self._client().put_events(Entries=[entry])
        except Exception as error:  # noqa: BLE001  # the change has been made, whatever keeps it from being told
            self._report(error)
            return
        if answer["FailedEntryCount"]:
            self._report(EventRefusedError(answer["Entries"][0].get("ErrorCode", "")))


class EventRefusedError(Exception):
    """EventBridge answered, but did not take the event."""


def detail(change: ProviderChange) -> dict[str, Any]:
    """Write what a consumer sees; the error's hint says who must do what."""
    error = change.error and {"code": change.error.code, "message": change.error.message, "hint": change.error.hint}
    return {
        "version": VERSION,
        "tenantId": change.tenant_id,
        "change": change.change,
        "status": change.status.value,
        "configVersion": change.version,
        "error": error,
    }

"""Find tenants that send mail and receive none of SES's events for it: their bounces go unnoticed."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from mailer.domain.delivery import Delivery
from mailer.domain.errors import DependencyError
from mailer.domain.feedback_state import feedback_hint
from mailer.ports import FeedbackWatch, Telemetry


def note_sent(sent: Iterable[Delivery], watch: FeedbackWatch, telemetry: Telemetry) -> None:
    """Mark the config versions that have sent; the tenant's next mail repeats a mark that fails."""
    for (tenant_id, version), at in _latest(sent).items():
        try:
            silent = watch.sent(tenant_id, version, at)
        except DependencyError as failure:
            telemetry.failed("mark as sent", tenant_id, failure)
            continue
        if silent is not None:
            telemetry.feedback_silent(tenant_id, version, feedback_hint(replace(silent, silent_since=at)) or "")


def _latest(sent: Iterable[Delivery]) -> dict[tuple[str, int], datetime]:
    """Return when each version's last mail was recorded as sent.

    Not `sent_at`: for an unknown that an event resolved it may be days ago, and the version would be silent at once.
    """
    latest: dict[tuple[str, int], datetime] = {}
    for record in sent:
        if record.provider_version is not None and record.sent_at is not None:
            key = (record.tenant_id, record.provider_version)
            latest[key] = max(record.updated_at, latest.get(key, record.updated_at))
    return latest

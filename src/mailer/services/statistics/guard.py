"""Guard each tenant's reputation: warn of bounce or complaint rates that are too high, and suspend the provider if so configured.

SES pauses a whole account for them, with everything that is sent from it. A tenant is judged with each bounce and complaint counted. A
judgement that fails does not stop the counting; the tenant's next bounce or complaint repeats it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.domain.errors import DependencyError
from mailer.domain.provider import Provider, ProviderStatus
from mailer.domain.reputation import Finding, GuardMode, Limit, first_hour, in_time, judge
from mailer.domain.statistics import received_badly
from mailer.ports import Clock, GuardedProviders, RecordWrite, StatisticsTable, Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDependencies:
    """What the guard depends on."""

    mode: GuardMode
    limits: Sequence[Limit]
    statistics: StatisticsTable
    providers: GuardedProviders
    telemetry: Telemetry
    clock: Clock


def guard(writes: Iterable[RecordWrite], deps: GuardDependencies) -> None:
    """Judge the tenants for which these counted writes add bounces or complaints; never raises DependencyError."""
    if deps.mode == "off":
        return
    for tenant_id, hours in received_badly((write.old, write.new) for write in writes).items():
        try:
            _guard(tenant_id, hours, deps)
        except DependencyError as failure:
            deps.telemetry.failed("guard", tenant_id, failure)


def _guard(tenant_id: str, reported: frozenset[datetime], deps: GuardDependencies) -> None:
    now = deps.clock.now()
    judged = in_time(reported, now)
    if not judged:
        return
    hours = deps.statistics.read(tenant_id, first_hour(deps.limits, judged[0]), now + timedelta(hours=1))
    if not judge(hours, deps.limits, reported, now):
        return
    row = deps.providers.get(tenant_id)
    if row is None or row.status is not ProviderStatus.ACTIVE:
        return  # it sends nothing, so there is nothing to warn of
    findings = judge(hours, deps.limits, reported, now, row.resumption)
    for finding in findings:
        deps.telemetry.at_risk(tenant_id, finding.limit.signal, finding.error.message)
    _pause(row, [finding for finding in findings if finding.limit.action == "pause"], deps)


def _pause(row: Provider, findings: Sequence[Finding], deps: GuardDependencies) -> None:
    if deps.mode != "pause" or not findings:
        return
    error = findings[0].error
    if deps.providers.suspend_at_risk(row.tenant_id, error, row):
        deps.telemetry.suspended(row.tenant_id, row.active.version if row.active else row.versions, error)

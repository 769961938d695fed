"""Reserve sending slots for a batch: one reservation per sending account; the messages are sent in the order of their slots.

A large mail needs a second slot, of its account's bandwidth: SES takes only so many bytes of them a second. Small mails do not wait for it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from mailer.domain.delivery import NotSent, Outcome
from mailer.domain.errors import DependencyError
from mailer.domain.large_mail import BANDWIDTH, is_large, megabytes
from mailer.domain.message import EmailMessage
from mailer.domain.pacing import FORGIVEN, RateSource, RetryAt, Slot, bandwidth_key
from mailer.domain.provider import Provider, StoredConfig
from mailer.ports import EmailProvider
from mailer.services.pacing.accounts import account_of, rate_source
from mailer.services.sending.jobs import Job, SendDependencies


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSend:
    """A job with its provider, without slot and mail yet."""

    job: Job
    row: Provider | None
    config: StoredConfig
    provider: EmailProvider
    suppressed: frozenset[str] = frozenset()
    """Recipients that are left out, as they are listed."""

    @property
    def recipients(self) -> int:
        """Return how many recipients it goes to: what SES counts."""
        return self.job.request.recipients if not self.suppressed else len(self.message.recipients)

    @property
    def message(self) -> EmailMessage:
        """Return the message as it goes out."""
        return self.job.send.message.without(self.suppressed)

    @property
    def account(self) -> str | None:
        """Return the key of the sending account that it counts towards; None if it is not paced."""
        return account_of(self.job.tenant_id, self.config)


@dataclass(frozen=True, slots=True)
class ScheduledSend:
    """A prepared send with its slot, its time to retry, or the failure of the reservation."""

    prepared: PreparedSend
    plan: Slot | RetryAt | Exception


def reserve_slots(prepared: Iterable[PreparedSend], deps: SendDependencies, *, latest: datetime) -> Sequence[ScheduledSend]:
    """Reserve slots for all messages of each account together; return them in sending order.

    The order is by slot; messages without one come last and are requeued. After `latest` nothing is reserved: all are requeued.
    """
    accounts: dict[str | None, list[PreparedSend]] = defaultdict(list)
    for one in prepared:
        accounts[one.account].append(one)
    sends = list(chain.from_iterable(deps.workers.map(lambda account: _reserve(account, accounts[account], deps, latest), accounts)))
    now = deps.clock.now()
    return sorted(sends, key=lambda scheduled: (scheduled.plan.at, False) if isinstance(scheduled.plan, Slot) else (now, True))


def _reserve(account: str | None, prepared: Sequence[PreparedSend], deps: SendDependencies, latest: datetime) -> Sequence[ScheduledSend]:
    now = deps.clock.now()
    if account is None:
        return [ScheduledSend(one, Slot(now)) for one in prepared]
    if now > latest:
        return [ScheduledSend(one, RetryAt(now)) for one in prepared]
    try:
        plans = deps.pacer.reserve(
            account,
            _source(prepared),
            [one.recipients for one in prepared],
            [one.job.queue_message.slot for one in prepared],
            now,
        )
    except Exception as failure:  # noqa: BLE001  # raised again for each message, which is then handled by itself
        return [ScheduledSend(one, failure) for one in prepared]
    return [ScheduledSend(one, plan) for one, plan in zip(prepared, plans, strict=True)]


def revalidate_slot(slot: Slot, prepared: PreparedSend, deps: SendDependencies) -> Slot | RetryAt:
    """Return the slot, or a new one if this worker missed it because composing took long or all threads were busy.

    Raises:
        DependencyError: the pacing table did not answer.
    """
    now = deps.clock.now()
    if prepared.account is None or now - slot.at <= timedelta(seconds=FORGIVEN):
        return slot
    return deps.pacer.reserve(prepared.account, _source([prepared]), [prepared.recipients], [None], now)[0]


def reserve_bandwidth(size: int, prepared: PreparedSend, deps: SendDependencies) -> Slot | RetryAt:
    """Return when a mail of so many bytes may be uploaded: a small one now, a large one when its account's bandwidth is free.

    Raises:
        DependencyError: the pacing table did not answer.
    """
    now = deps.clock.now()
    if prepared.account is None or not is_large(size):
        return Slot(now)
    carried = prepared.job.queue_message.upload_slot
    return deps.pacer.reserve(bandwidth_key(prepared.account), RateSource(configured=BANDWIDTH), [megabytes(size)], [carried], now)[0]


def _source(prepared: Sequence[PreparedSend]) -> RateSource:
    """Return the source of the rate; GetSendQuota is only called if verify was allowed to call it."""
    answering = next((one.provider for one in prepared if one.config.quota_rate is not None), None)
    return rate_source([one.config for one in prepared], (lambda: answering.account_facts().max_send_rate) if answering else None)


def apply_backpressure(outcome: Outcome, size: int, prepared: PreparedSend, deps: SendDependencies) -> None:
    """Slow the account down after a throttle; pause it if its quota is used up.

    The throttle of a large mail slows large mails only; if it was for the sending rate, a small mail will meet it too.
    If the pacing table does not answer, the rate stays until the next refusal.
    """
    if prepared.account is None or not isinstance(outcome, NotSent):
        return
    try:
        if outcome.error.code == "throttled":
            deps.pacer.throttled(bandwidth_key(prepared.account) if is_large(size) else prepared.account, deps.clock.now())
        elif outcome.error.code == "daily_quota_exceeded":
            deps.pacer.quota_exhausted(prepared.account, deps.clock.now())
    except DependencyError as failure:
        deps.telemetry.failed("pace", prepared.job.tenant_id, failure)

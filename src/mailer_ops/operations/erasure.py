"""Erase the data of a request, or of a tenant; can be repeated, and continues where it stopped.

A request's ids and status stay until no message of it can be on the queue any more: without them a late message would be sent as new.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from mailer.domain import changes, lifecycle
from mailer.domain.delivery import ERASED_CONTENT, Delivery
from mailer.domain.events import provider_changed
from mailer.domain.message import readable_ids
from mailer.domain.pacing import account_key
from mailer.domain.provider import Provider
from mailer.domain.suppressions import suppression_key
from mailer.ports import Clock, MessagesTable, ParkedBodies, ProviderStore, RefusedError, Telemetry
from mailer.services.requests.parked_bodies import discard
from mailer_ops.ports import AddressEraser, DeadLetter, DeadLetters, Eraser

COPIES_LAST = timedelta(days=15)
"""How long after a request's end a message of it may still be on the queue: SQS keeps messages for 14 days (template.yaml)."""

CANCELLED, RECORDS, REDUCED = "requests cancelled", "records deleted", "records reduced to ids and status, for 15 days"
DEAD_LETTERS, BODIES, UPLOADS = "dead letters", "versions of parked bodies", "versions of uploads"
SUPPRESSIONS, FACTS = "suppressions", "requests with feedback of the address"
CONFIG, ACCOUNT_RATES, FEEDBACK = "provider", "account rates", "items of feedback"
STATISTICS = "items of statistics"


class StillOpenError(Exception):
    """Some requests are open and must end first; the text says which, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureDependencies:
    """What an erasure depends on."""

    eraser: Eraser
    addresses: AddressEraser
    providers: ProviderStore
    messages: MessagesTable
    dead_letters: DeadLetters
    parked: ParkedBodies
    telemetry: Telemetry
    clock: Clock


def erase_request(tenant_id: str, request_id: str, deps: ErasureDependencies, *, cancel: bool, uploads: Iterable[str] = ()) -> Counter[str]:
    """Erase one request, and the uploads that are named; return what was erased.

    Raises:
        StillOpenError: it has not ended, and was not to be cancelled, or cannot be.
        DependencyError: an AWS service did not answer; run it again.
    """
    record = deps.messages.get(tenant_id, request_id)
    records = [record] if record is not None and record.content_hash != ERASED_CONTENT else []
    erased = _end_all(records, deps, cancel=cancel)
    erased[DEAD_LETTERS] = _erase_dead_letters(lambda ids: ids == (tenant_id, request_id), deps)
    erased[BODIES] = deps.eraser.erase_objects(f"parked/{tenant_id}/{request_id}/")
    erased[UPLOADS] = sum(deps.eraser.erase_object(f"attachments/{tenant_id}/{key.removeprefix(f'{tenant_id}/')}") for key in uploads)
    # Only the record has SES's messageIds: a repeated command would not find their items. Again after it, as events then write nothing.
    feedback = deps.eraser.erase_feedback(tenant_id, request_id, record)
    erased += _erase_records([deps.messages.get(tenant_id, request_id)] if records else [], deps)
    erased[FEEDBACK] = feedback + deps.eraser.erase_feedback(tenant_id, request_id, record)
    return +erased


def erase_tenant(tenant_id: str, deps: ErasureDependencies, *, cancel: bool) -> Counter[str]:
    """Erase a tenant, except the version counter of its provider's row. Return what was erased.

    Raises:
        StillOpenError: some of its requests have not ended, and were not to be cancelled, or cannot be.
        DependencyError: an AWS service did not answer; run it again.
    """
    if not cancel:
        _refuse_open([record for record in deps.eraser.records(tenant_id) if not record.ended])
    account_rates = _own_account_rates(tenant_id, deps)
    # Before the config that names them, which a repeated command would not find. Again at the end: until then mail may be paced.
    erased = Counter({ACCOUNT_RATES: _erase_account_rates(account_rates, deps)})
    erased[CONFIG] = _change_provider(tenant_id, deps, lambda row: lifecycle.delete(row, deps.clock.now()))
    erased += _end_all(list(deps.eraser.records(tenant_id)), deps, cancel=cancel)
    erased[DEAD_LETTERS] = _erase_dead_letters(lambda ids: ids[0] == tenant_id, deps)
    erased[BODIES] = deps.eraser.erase_objects(f"parked/{tenant_id}/")
    erased[UPLOADS] = deps.eraser.erase_objects(f"attachments/{tenant_id}/")
    erased += _erase_records(deps.eraser.records(tenant_id), deps)
    erased[FEEDBACK] = deps.eraser.erase_all_feedback(tenant_id)
    erased[SUPPRESSIONS] = deps.addresses.erase_suppressions_of(tenant_id)
    erased[ACCOUNT_RATES] += _erase_account_rates(account_rates, deps)
    erased[STATISTICS] = deps.eraser.erase_statistics(tenant_id)
    erased[CONFIG] |= _change_provider(tenant_id, deps, lifecycle.erase)
    return +erased


def erase_address(address: str, deps: ErasureDependencies) -> Counter[str]:
    """Erase the data of an address, for all tenants: suppressions, and SES's reports about it. Return what was erased.

    The bodies of waiting mail are not searched. Without its suppressions the address is mailed again.

    Raises:
        AddressError: it is not a valid address.
        DependencyError: DynamoDB did not answer, or something changed meanwhile; run it again.
    """
    email = suppression_key(address)
    return +Counter({SUPPRESSIONS: deps.addresses.erase_suppressed(email), FACTS: deps.addresses.erase_facts(email)})


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _end_all(records: Iterable[Delivery], deps: ErasureDependencies, *, cancel: bool) -> Counter[str]:
    """Cancel the open requests, if that is wanted.

    Raises:
        StillOpenError: some cannot be cancelled, or must not be.
    """
    waiting = [record for record in records if not record.ended]
    if not cancel:
        _refuse_open(waiting)
    left = [record for record in waiting if not _cancelled(record, deps)]
    if left:
        raise StillOpenError(f"{_counted(left)} may be at SES now, or may have been sent: erase again when they have ended")
    return Counter({CANCELLED: len(waiting)})


def _refuse_open(waiting: Iterable[Delivery]) -> None:
    if waiting := list(waiting):
        raise StillOpenError(f"{_counted(waiting)} not ended: wait, or add --cancel")


def _counted(records: Iterable[Delivery]) -> str:
    counts = Counter(record.status.value for record in records)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def _cancelled(record: Delivery, deps: ErasureDependencies) -> bool:
    """Cancel one request; False if an attempt may have been sent. One that has ended meanwhile needs nothing."""
    try:
        ended = deps.messages.apply(changes.cancel(record, deps.clock.now()))
    except RefusedError as refusal:
        return refusal.current is None or refusal.current.ended
    deps.telemetry.recorded(ended)
    discard(ended.parked, deps)
    return True


def _erase_records(records: Iterable[Delivery | None], deps: ErasureDependencies) -> Counter[str]:
    erased: Counter[str] = Counter()
    for record in records:
        if record is None:
            continue
        forgotten = record.updated_at + COPIES_LAST
        is_late = forgotten <= deps.clock.now()
        try:
            deps.eraser.erase_record(record, keep_until=None if is_late else forgotten)
        except RefusedError as refusal:
            raise StillOpenError("a record has changed meanwhile: erase again") from refusal
        erased[RECORDS if is_late else REDUCED] += 1
    return +erased


def _erase_dead_letters(selected: Callable[[tuple[str, str]], bool], deps: ErasureDependencies) -> int:
    """Delete the dead letters of the selected requests; one without ids in its body counts towards its message group's tenant."""
    kept: list[DeadLetter] = []
    erased = 0
    try:
        for dead_letter in deps.dead_letters.receive_all():
            if selected(readable_ids(dead_letter.queue_message.body) or (dead_letter.queue_message.tenant_id or "", "")):
                deps.dead_letters.delete(dead_letter)
                erased += 1
            else:
                kept.append(dead_letter)
    finally:
        deps.dead_letters.put_back(kept)
    return +erased


# ── the tenant ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _own_account_rates(tenant_id: str, deps: ErasureDependencies) -> set[str]:
    """Return the keys of the account rates that only this tenant uses: those of its configs, and of the attempts on its records."""
    row = deps.providers.get(tenant_id)
    configs = [config for config in (row.active, row.candidate) if config and config.provider == "ses"] if row else []
    used = {(config.region, config.account) for config in configs}
    used |= {(record.region, record.account) for record in deps.eraser.records(tenant_id) if record.region}
    shared = {account for _, account in used if account and deps.eraser.shares_account(tenant_id, account)}
    return {account_key(tenant_id, region, account) for region, account in used if account not in shared}


def _erase_account_rates(accounts: Iterable[str], deps: ErasureDependencies) -> int:
    return sum(deps.eraser.erase_account_rate(account) for account in accounts)


_TRIES = 10


def _change_provider(tenant_id: str, deps: ErasureDependencies, decide: Callable[[Provider], Provider]) -> int:
    """Replace the tenant's row by the decided one; return whether that changed anything."""
    for _ in range(_TRIES):
        row = deps.providers.get(tenant_id)
        if row is None or (decided := decide(row)) == row:
            return 0
        if deps.providers.replace(decided):
            if event := provider_changed("", row, decided):
                deps.telemetry.provider_changed(event)
            return 1
    raise StillOpenError("the provider is being changed by others: erase again")

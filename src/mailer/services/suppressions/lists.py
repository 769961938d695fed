"""Show a tenant's suppressions, add manual ones, and lift them, at SES too if the tenant grants the right."""

import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.domain.errors import DependencyError, NotSentError, Problem, RequestError, UnreadableError
from mailer.domain.provider import Provider, StoredConfig
from mailer.domain.suppressions import Entry, Lifting, Reason, Suppression, lift, suppress_manually
from mailer.ports import Cleared, Clock, ProviderFactory, ProviderStore, SuppressionMarks, SuppressionPage, SuppressionsTable
from mailer.services.suppressions.entries import change_entry, entry_or_raise, find_entries, mark, read_entries

ASK_BY = timedelta(seconds=10)
"""How long getting the tenant's credentials may take; later SES is not called, because API Gateway's timeout for the whole call is 29 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionDependencies:
    """What the suppressions API depends on."""

    suppressions: SuppressionsTable
    marks: SuppressionMarks
    providers: ProviderStore
    provider_factory: ProviderFactory
    clock: Clock
    workers: Executor
    """Writes the entries of a batch in parallel."""


@dataclass(frozen=True, slots=True)
class SuppressionRequest:
    """A caller's request to suppress an address."""

    email: str
    """As `suppression_key` normalizes it."""
    why: str
    expires_at: datetime | None = None
    by: str | None = None
    """The ARN of the caller."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A suppressed address, normalized, and its suppression."""

    email: str
    suppression: Suppression


@dataclass(frozen=True, slots=True)
class SesList:
    """The state of an address on the suppression list of the tenant's own account at SES."""

    may_hold: bool
    """Whether the address may still be on it: SES would accept mail to it and not send it."""
    command: str | None
    """The AWS CLI command that removes it from that list."""


@dataclass(frozen=True, slots=True)
class Lifted:
    """A suppression that was lifted, and the state of SES's list."""

    suppression: Suppression
    ses_list: SesList


Refusal = RequestError | DependencyError
"""Why an address of a batch was not suppressed."""


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def list_suppressions(
    tenant_id: str, deps: SuppressionDependencies, *, reason: Reason | None, limit: int, cursor: str | None
) -> SuppressionPage:
    """Return a page of current suppressions, newest first; it may have fewer entries than `limit` even if more follow.

    Raises:
        RequestError: not_found: the cursor is not of this list.
    """
    try:
        page = deps.suppressions.list(tenant_id, reason=reason, limit=limit, cursor=cursor)
    except KeyError:
        raise RequestError([Problem("cursor", "is not one that this list gave")], "not_found") from None
    now = deps.clock.now()
    return SuppressionPage([entry for entry in page.entries if _fits(entry.in_force(now), reason)], page.cursor)


def _fits(suppression: Suppression | None, reason: Reason | None) -> bool:
    """Whether the table's entry still belongs to the list that was read from the index."""
    return suppression is not None and reason in (None, suppression.reason)


def get_suppression(tenant_id: str, email: str, deps: SuppressionDependencies) -> Suppression:
    """Return why an address is suppressed.

    Raises:
        RequestError: not_found: it is not suppressed.
    """
    return _in_force(_read(tenant_id, email, deps), deps)


def _read(tenant_id: str, email: str, deps: SuppressionDependencies) -> Entry:
    [entry] = read_entries([(tenant_id, email)], deps.suppressions).values()
    return entry


def _in_force(entry: Entry, deps: SuppressionDependencies) -> Suppression:
    suppression = entry.in_force(deps.clock.now())
    if suppression is None:
        raise RequestError([Problem("email", "is not suppressed for this tenant")], "not_found")
    return suppression


# ── suppress ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def suppress(tenant_id: str, request: SuppressionRequest, deps: SuppressionDependencies) -> Suppression:
    """Suppress an address manually; return the suppression in force, which is SES's if that is stronger.

    Raises:
        RequestError: `expiresAt` has passed; provider_not_configured.
        DependencyError: it may not be written.
    """
    return _suppress(_read(tenant_id, request.email, deps), request, deps)


def _suppress(entry: Entry, request: SuppressionRequest, deps: SuppressionDependencies) -> Suppression:
    now = deps.clock.now()
    if request.expires_at is not None and request.expires_at <= now:
        raise RequestError([Problem("expiresAt", "must be later than now")])
    suppression = Suppression(reason=Reason.MANUAL, at=now, expires_at=request.expires_at, by=request.by, why=request.why)
    written = change_entry(entry, deps, lambda read: suppress_manually(read, suppression, now))
    return _in_force(written, deps)


def suppress_batch(
    tenant_id: str, requests: Sequence[SuppressionRequest | RequestError], deps: SuppressionDependencies
) -> Sequence[Suppressed | Refusal]:
    """Suppress many addresses, each independently; return the answers in the order of `requests`.

    An element of `requests` that could not be parsed is a RequestError, which is its answer.

    Raises:
        RequestError: provider_not_configured.
        DependencyError: DynamoDB did not answer, or the tenant could not be marked.
    """
    last: Mapping[str, int] = {request.email: number for number, request in enumerate(requests) if isinstance(request, SuppressionRequest)}
    if not last:
        return [request for request in requests if isinstance(request, RequestError)]
    entries = find_entries([(tenant_id, email) for email in last], deps.suppressions)
    mark(tenant_id, deps.marks)

    def answer(number: int) -> Suppressed | Refusal:
        request = requests[number]
        if isinstance(request, RequestError):
            return request
        if last[request.email] != number:
            return RequestError([Problem("email", "occurs again later in this batch; the last one counts")])
        return _safely(entries[tenant_id, request.email], request, deps)

    return list(deps.workers.map(answer, range(len(requests))))


def _safely(entry: Entry | UnreadableError, request: SuppressionRequest, deps: SuppressionDependencies) -> Suppressed | Refusal:
    """Suppress one address of a batch; its error becomes its answer and does not affect the others."""
    try:
        return Suppressed(request.email, _suppress(entry_or_raise(entry), request, deps))
    except (RequestError, DependencyError) as refusal:
        return refusal


# ── lift ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lift_suppression(tenant_id: str, email: str, deps: SuppressionDependencies, *, by: str | None, why: str | None) -> Lifted:
    """Lift the suppression of an address; return it and the state of SES's list.

    SES is called first: after a crash in between, a retry finds the suppression still there and calls SES again.

    Raises:
        RequestError: not_found: it is not suppressed; suppressed_again: it was suppressed again meanwhile, and stays so.
        DependencyError: it may not be lifted.
    """
    entry = _read(tenant_id, email, deps)
    suppression = _in_force(entry, deps)
    lifting = Lifting(max(deps.clock.now(), *_times(entry)), by, why)
    ses_list = _clear_at_ses(entry, deps)
    if change_entry(entry, deps, lambda read: lift(read, lifting)).in_force(deps.clock.now()):
        raise RequestError([Problem("email", "was suppressed again meanwhile, and is not lifted")], "suppressed_again")
    return Lifted(suppression, ses_list)


def _times(entry: Entry) -> Sequence[datetime]:
    """Return the times of the suppressions to lift: another clock may be ahead of ours."""
    return [one.at for one in (entry.suppression, entry.by_ses) if one is not None]


def _clear_at_ses(entry: Entry, deps: SuppressionDependencies) -> SesList:
    """Remove an address from the account's own list, if its policy allows that, in every spelling that may be on it."""
    row = deps.providers.get(entry.tenant_id)
    config = (row.active or row.candidate) if row else None
    # SES lists hard bounces and complaints in the spelling of the mail.
    in_mail = [one.spelling for one in (entry.suppression, entry.by_ses) if one and one.spelling and one.reason in _LISTED_BY_SES]
    spellings = list(dict.fromkeys([*in_mail, entry.email]))
    if row and config and _is_cleared(spellings, row, config, deps, knows_all=bool(in_mail)):
        return SesList(may_hold=False, command=None)
    region = f" --region {config.region}" if config and config.region else ""
    # One shell word, so that an address that begins with a hyphen is not parsed as an option.
    address = shlex.quote(f"--email-address={spellings[0]}")
    return SesList(may_hold=True, command=f"aws sesv2 delete-suppressed-destination {address}{region}")


_LISTED_BY_SES = (Reason.HARD_BOUNCE, Reason.COMPLAINT)
"""Reasons whose report has the spelling on SES's list; with `ses_list` the listed spelling is not known."""


def _is_cleared(spellings: Sequence[str], row: Provider, config: StoredConfig, deps: SuppressionDependencies, *, knows_all: bool) -> bool:
    """Return whether the address is certainly not on the list; if no spelling was found there, only if `knows_all` spellings."""
    started = deps.clock.now()
    try:
        provider = deps.provider_factory.create(row.tenant_id, config, row.verified_at)
    except (NotSentError, DependencyError):
        return False
    found = False
    for spelling in spellings:
        cleared = provider.clear_suppression(spelling) if deps.clock.now() - started <= ASK_BY else Cleared.UNKNOWN
        if cleared is Cleared.UNKNOWN:
            return False
        found = found or cleared is Cleared.GONE
    return found or knows_all

"""Show a tenant's suppressions, add to them on a caller's word, and lift them, at SES too where the tenant lets us."""

import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.domain.errors import DependencyError, NotSentError, Problem, RequestError
from mailer.domain.provider import StoredConfig
from mailer.domain.suppressions import Entry, Lifting, Reason, Suppression, lift, suppress_manually
from mailer.ports import Cleared, Clock, ProviderFactory, ProviderStore, SuppressionMarks, SuppressionPage, SuppressionsTable
from mailer.services.suppressions.entries import change_entry, mark, read_entries

ASK_BY = timedelta(seconds=10)
"""How long getting the tenant's credentials may take; after it SES is not asked, for API Gateway waits 29 s for all of a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionDependencies:
    """What the suppressions API depends on."""

    suppressions: SuppressionsTable
    marks: SuppressionMarks
    providers: ProviderStore
    provider_factory: ProviderFactory
    clock: Clock
    workers: Executor
    """Writes the entries of a batch side by side."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a caller says of an address: it is not to be mailed."""

    email: str
    """As it is listed."""
    why: str
    expires_at: datetime | None = None
    by: str | None = None
    """The ARN of the caller."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """An address, as it is listed, and why it is not mailed."""

    email: str
    suppression: Suppression


@dataclass(frozen=True, slots=True)
class SesList:
    """What is known of the suppression list that the tenant's own account has at SES."""

    may_hold: bool
    """Whether it may still hold the address: SES would accept mail to it and not send it."""
    command: str | None
    """What takes it off that list."""


@dataclass(frozen=True, slots=True)
class Lifted:
    """A suppression that was lifted, and what may stand at SES."""

    suppression: Suppression
    ses_list: SesList


Refusal = RequestError | DependencyError
"""Why an address of a batch was not suppressed."""


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def list_suppressions(
    tenant_id: str, deps: SuppressionDependencies, *, reason: Reason | None, limit: int, cursor: str | None
) -> SuppressionPage:
    """Return a page of what is suppressed now, newest first; it may have fewer entries than `limit` though more follow.

    Raises:
        RequestError: not_found, for a cursor that is none of this list's.
    """
    try:
        page = deps.suppressions.list(tenant_id, reason=reason, limit=limit, cursor=cursor)
    except KeyError:
        raise RequestError([Problem("cursor", "is not one that this list gave")], "not_found") from None
    now = deps.clock.now()
    return SuppressionPage([entry for entry in page.entries if _fits(entry.in_force(now), reason)], page.cursor)


def _fits(suppression: Suppression | None, reason: Reason | None) -> bool:
    """Whether what the table has by now still belongs to the list that the index gave."""
    return suppression is not None and reason in (None, suppression.reason)


def get_suppression(tenant_id: str, email: str, deps: SuppressionDependencies) -> Suppression:
    """Return why an address is suppressed.

    Raises:
        RequestError: not_found: it is not.
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


def suppress(tenant_id: str, word: Word, deps: SuppressionDependencies) -> Suppression:
    """Suppress an address on a caller's word; return what stands then, which is what SES told where that is stronger.

    Raises:
        RequestError: `expiresAt` has passed; provider_not_configured.
        DependencyError: it is not certain to be written.
    """
    return _suppress(_read(tenant_id, word.email, deps), word, deps)


def _suppress(entry: Entry, word: Word, deps: SuppressionDependencies) -> Suppression:
    now = deps.clock.now()
    if word.expires_at is not None and word.expires_at <= now:
        raise RequestError([Problem("expiresAt", "must be later than now")])
    suppression = Suppression(reason=Reason.MANUAL, at=now, expires_at=word.expires_at, by=word.by, why=word.why)
    written = change_entry(entry, deps, lambda read: suppress_manually(read, suppression, now))
    return _in_force(written, deps)


def suppress_batch(tenant_id: str, words: Sequence[Word | RequestError], deps: SuppressionDependencies) -> Sequence[Suppressed | Refusal]:
    """Suppress many addresses, each by itself; the answers stand in the order of the words.

    A word that could not be read stands as its refusal, which becomes its answer.

    Raises:
        RequestError: provider_not_configured.
        DependencyError: nothing could be read or marked.
    """
    last: Mapping[str, int] = {word.email: number for number, word in enumerate(words) if isinstance(word, Word)}
    if not last:
        return [word for word in words if isinstance(word, RequestError)]
    entries = read_entries([(tenant_id, email) for email in last], deps.suppressions)
    mark(tenant_id, deps.marks)

    def answer(number: int) -> Suppressed | Refusal:
        word = words[number]
        if isinstance(word, RequestError):
            return word
        if last[word.email] != number:
            return RequestError([Problem("email", "stands in this batch again, further down, and that one counts")])
        return _safely(entries[tenant_id, word.email], word, deps)

    return list(deps.workers.map(answer, range(len(words))))


def _safely(entry: Entry, word: Word, deps: SuppressionDependencies) -> Suppressed | Refusal:
    """Make an address's error its own answer: its neighbours go on."""
    try:
        return Suppressed(word.email, _suppress(entry, word, deps))
    except (RequestError, DependencyError) as refusal:
        return refusal


# ── lift ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lift_suppression(tenant_id: str, email: str, deps: SuppressionDependencies, *, by: str | None, why: str | None) -> Lifted:
    """Let an address be mailed again, and tell what may stand in the way at SES.

    SES comes first: after a crash in between, the call is made again, and tells it again.

    Raises:
        RequestError: not_found: it is not suppressed; suppressed_again: something suppressed it meanwhile, which stands.
        DependencyError: it is not certain to be lifted.
    """
    entry = _read(tenant_id, email, deps)
    suppression = _in_force(entry, deps)
    lifting = Lifting(max(deps.clock.now(), *_times(entry)), by, why)
    ses_list = _clear_at_ses(entry, deps)
    if change_entry(entry, deps, lambda read: lift(read, lifting)).in_force(deps.clock.now()):
        raise RequestError([Problem("email", "was suppressed again meanwhile, and is not lifted")], "suppressed_again")
    return Lifted(suppression, ses_list)


def _times(entry: Entry) -> Sequence[datetime]:
    """Return when what is lifted began: another clock may be ahead of ours."""
    return [one.at for one in (entry.suppression, entry.told) if one is not None]


def _clear_at_ses(entry: Entry, deps: SuppressionDependencies) -> SesList:
    """Take an address off the account's own list, where its policy lets us, in every spelling that it may stand there in."""
    row = deps.providers.get(entry.tenant_id)
    config = (row.active or row.candidate) if row else None
    # SES puts on its list what bounced for good or complained, spelled as the mail had it.
    told = [one.spelling for one in (entry.suppression, entry.told) if one and one.spelling and one.reason in _LISTED_BY_SES]
    spellings = list(dict.fromkeys([*told, entry.email]))
    if config is not None and _is_cleared(spellings, entry.tenant_id, config, deps, knows_all=bool(told)):
        return SesList(may_hold=False, command=None)
    region = f" --region {config.region}" if config and config.region else ""
    # One word, so that an address that begins with a hyphen is no option.
    address = shlex.quote(f"--email-address={spellings[0]}")
    return SesList(may_hold=True, command=f"aws sesv2 delete-suppressed-destination {address}{region}")


_LISTED_BY_SES = (Reason.HARD_BOUNCE, Reason.COMPLAINT)
"""What SES told of an address when it put it on its list; `ses_list` says that it was there, in whatever spelling."""


def _is_cleared(spellings: Sequence[str], tenant_id: str, config: StoredConfig, deps: SuppressionDependencies, *, knows_all: bool) -> bool:
    """Tell whether it is certain that the list does not hold an address; where no spelling was found, only if `knows_all` of them."""
    started = deps.clock.now()
    try:
        provider = deps.provider_factory.create(tenant_id, config)
    except (NotSentError, DependencyError):
        return False
    found = False
    for spelling in spellings:
        cleared = provider.clear_suppression(spelling) if deps.clock.now() - started <= ASK_BY else Cleared.UNKNOWN
        if cleared is Cleared.UNKNOWN:
            return False
        found = found or cleared is Cleared.GONE
    return found or knows_all

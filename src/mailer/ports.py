"""The services' dependencies as Protocols; the adapters implement them, the tests fake them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Literal, Protocol

from mailer.domain.delivery import Change, Delivery, Outcome, Status
from mailer.domain.errors import ErrorInfo, UnreadableError
from mailer.domain.events import Event
from mailer.domain.facts import Facts, RecipientStatus
from mailer.domain.feedback import MailRef, Refusal, SesEvent, VerifyRef
from mailer.domain.message import S3Object
from mailer.domain.mime import Mail, Sender
from mailer.domain.pacing import AccountRate, Booking, RateSource, RetryAt, Slot
from mailer.domain.producers import Producers
from mailer.domain.provider import Provider, ProviderStatus, RoleConfig, StoredConfig
from mailer.domain.statistics import Bucket, Counts
from mailer.domain.suppressions import Entry, Reason
from mailer.domain.uploads import Upload, UploadRequest


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        ...

    def wait_until(self, moment: datetime) -> None:
        """Sleep until a moment that is at most a few seconds away."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """What is known of a sending account; None if its policy does not allow the call, or it did not answer."""

    account: str | None = None
    """The AWS account's id."""
    sandbox: bool | None = None
    max_send_rate: float | None = None
    """Recipients per second."""
    quota_24h: float | None = None
    """Recipients in 24 hours."""


class Cleared(Enum):
    """What is known of an address that was to be taken off the suppression list of an account."""

    GONE = auto()
    """Removed, or the account has no such list."""
    NOT_FOUND = auto()
    """In that spelling."""
    UNKNOWN = auto()
    """The account does not let us, or does not answer."""


class EmailProvider(Protocol):
    """Sends one tenant's mail, with that tenant's credentials."""

    @property
    def name(self) -> str:
        """`ses` or `smtp`, as the status record shows it."""
        ...

    @property
    def sender(self) -> Sender:
        """The sender of its mail."""
        ...

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:
        """Hand the message over, once; never raises for what the provider or the network does."""
        ...

    def account_facts(self) -> AccountFacts:
        """Query the account about itself, within a few seconds; never raises."""
        ...

    def clear_suppression(self, email: str) -> Cleared:
        """Take an address, spelled as it is, off the account's own suppression list, within a few seconds.

        Never raises where the account does not let us, or does not answer.
        """
        ...


class ProviderFactory(Protocol):
    """Creates a provider from a stored config: decrypts it and gets its credentials, both cached."""

    def create(self, tenant_id: str, config: StoredConfig, since: datetime | None) -> EmailProvider:
        """Create the provider of one version of a tenant's config.

        `since` is when the config was last verified: sessions with its role that began before are not used, because the account's owner
        may have revoked them.

        Raises:
            NotSentError: config_unreadable, role_not_assumable and the like: the tenant's fault.
            DependencyError: KMS or STS did not do its part.
        """
        ...


class Attachments(Protocol):
    """Attachments that were uploaded before."""

    def version(self, tenant_id: str, ref: S3Object) -> str | None:
        """Return the version of a tenant's uploaded object that a reference means now; None if the store keeps no versions.

        Raises:
            RequestError: attachment_missing, or message_too_large.
            DependencyError: S3 did not answer.
        """
        ...

    def fetch(self, tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:
        """Return a tenant's uploaded object in the named or pinned version, also if a newer one exists.

        Nothing is read of one that has more than `at_most` bytes. What is returned is what was uploaded: where S3 has the file's
        checksum, it fits.

        Raises:
            RequestError: attachment_missing, or message_too_large.
            LargerFileError: it has more than `at_most` bytes.
            DependencyError: S3 did not answer.
        """
        ...


class LargerFileError(Exception):
    """An upload has more bytes, `size`, than there is room for."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


class Uploads(Protocol):
    """Permits uploads of attachments."""

    def create_upload(self, tenant_id: str, request: UploadRequest) -> Upload:
        """Permit one upload of a file of the type and the size that the request names."""
        ...


class ProvidersTable(Protocol):
    """The part of the providers table that sending needs; every read is consistent."""

    def get_many(self, tenant_ids: Collection[str]) -> Mapping[str, Provider | UnreadableError]:
        """Return the rows that exist (a tombstone is a row); of one that cannot be read, why.

        Beside an active config a candidate that cannot be read is left out: mail is sent with the active one.
        """
        ...

    def record_fault(self, tenant_id: str, version: int, request_id: str, error: ErrorInfo, verified_at: datetime | None) -> bool:
        """Count a tenant-class error of a request against a version; True when this one suspended it.

        `verified_at` is that of the row that was read: an error from before a later verify is not counted.
        """
        ...

    def clear_faults(self, tenant_id: str, version: int) -> None:
        """Forget the counted errors of a version that has just sent; a write, so call it only if the row has some."""
        ...

    def learn_sandbox(self, tenant_id: str, version: int) -> None:
        """Note that SES refused a recipient of this version's mail as it only does in the sandbox."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderPage:
    """One page of a list of providers; `cursor` is None on the last."""

    rows: Sequence[Provider]
    cursor: str | None


class ProviderStore(Protocol):
    """The providers table as the provider API uses it: read, decide, replace what was read."""

    def get(self, tenant_id: str) -> Provider | None:
        """Read a row, consistently; a tombstone is a row."""
        ...

    def replace(self, row: Provider) -> bool:
        """Replace the revision that was read (0: there was no row); False if another write came first."""
        ...

    def list(self, *, status: ProviderStatus | None, limit: int, cursor: str | None) -> ProviderPage:
        """List the providers that there are, by status and then by tenant; a tombstone is none.

        Raises:
            KeyError: the cursor is not one of this list's.
        """
        ...


class SuppressionMarks(Protocol):
    """The mark on a provider row that makes sending look up the tenant's suppressions."""

    def mark_suppressions(self, tenant_id: str) -> bool:
        """Mark that a tenant has suppressions; False if it has no row. Called before the first is written.

        Raises:
            DependencyError: DynamoDB did not answer; the write may have happened.
        """
        ...


Listed = tuple[str, str]
"""The key of an address in the suppressions table: the tenant's id, and the address as `suppression_key` normalizes it."""


class SuppressionsReader(Protocol):
    """The part of the suppressions table that sending needs."""

    def get_many(self, addresses: Collection[Listed]) -> Mapping[Listed, Entry | UnreadableError]:
        """Return the entries that exist, read consistently; for an unreadable one its error. Up to a hundred are read in one call.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class SuppressionPage:
    """One page of a tenant's suppressed addresses, newest first; `cursor` is None on the last."""

    entries: Sequence[Entry]
    cursor: str | None


class SuppressionsTable(SuppressionsReader, Protocol):
    """Tenants' suppressed addresses."""

    def replace(self, entry: Entry) -> bool:
        """Replace the revision that was read (0: there was no entry); False if another write came first.

        Raises:
            DependencyError: DynamoDB did not answer; the write may have happened.
        """
        ...

    def list(self, tenant_id: str, *, reason: Reason | None, limit: int, cursor: str | None) -> SuppressionPage:
        """List a tenant's suppressed addresses, for any reason or for one, newest first; expired ones may be included.

        A cursor is valid for the list that gave it: of this tenant, with this reason.

        Raises:
            KeyError: the cursor is not one of this list's.
            DependencyError: DynamoDB did not answer.
        """
        ...


class Releases(Protocol):
    """The tenants whose waiting mail is to be released: their provider was verified, enabled or deleted."""

    def releasing(self) -> Sequence[str]:
        """Return their ids, longest marked first; a tenant stays marked until `released` says yes."""
        ...

    def released(self, tenant_id: str, now: datetime) -> bool:
        """Take a tenant off the list once none of its mail waits; False while its mark is younger than RELEASE_MARKED.

        A batch that read the row before the change may still park mail: a tenant stays on the list until such a batch is over.
        """
        ...


SimulatedEvent = Literal["bounce", "complaint"]
"""The events that `verify` has SES's simulator make."""


class ProviderFeedback(Protocol):
    """The marks that SES's events arrive, each on one version of a tenant's config.

    Every method raises DependencyError if DynamoDB does not answer; the mark may have been written.
    """

    def event_arrived(self, tenant_id: str, version: int, at: datetime) -> None:
        """Mark that an event of a version's mail arrived at this time, once in HEARD_EVERY; no effect if the version is gone."""
        ...

    def simulated(self, tenant_id: str, version: int, simulation: datetime, kind: SimulatedEvent, at: datetime) -> None:
        """Mark that an event of a simulation arrived; no effect if it is not the last simulation, or has such a mark."""
        ...


class FeedbackWatch(Protocol):
    """The marks of mail that was sent and not followed by an event."""

    def sent(self, tenant_id: str, version: int, at: datetime) -> StoredConfig | None:
        """Mark that a version sent a mail at this time and no event has arrived since, once in HEARD_EVERY.

        Return its config if this mail makes it silent; None if not, or if it has no configuration set.

        Raises:
            DependencyError: DynamoDB did not answer; the mark may have been written.
        """
        ...


class ConfigCipher(Protocol):
    """Encrypts configs, each bound to its tenant, provider and version."""

    def encrypt(self, tenant_id: str, provider: str, version: int, plaintext: bytes) -> bytes:
        """Encrypt a config.

        Raises:
            DependencyError: KMS failed.
        """
        ...

    def decrypt(self, tenant_id: str, provider: str, version: int, ciphertext: bytes) -> bytes:
        """Decrypt a config.

        Raises:
            NotSentError: config_unreadable: damaged, or encrypted for another tenant, provider or version.
            DependencyError: KMS did not do its part; nothing is wrong with the config.
        """
        ...


class TrustProbe(Protocol):
    """Tries to assume a role without its ExternalId."""

    def refuses_foreign_external_id(self, config: RoleConfig) -> bool:
        """Return whether the role's trust policy refuses both a wrong ExternalId and none.

        Raises:
            DependencyError: STS did not answer.
        """
        ...


class TemplateStore(Protocol):
    """Keeps CloudFormation templates where a tenant's console can read them."""

    def publish(self, template: str) -> str:
        """Store a template, which must not contain data of a tenant; return a URL that serves it for a while.

        Raises:
            DependencyError: S3 did not take it.
        """
        ...


class EventBus(Protocol):
    """The event bus that other systems subscribe to."""

    def put(self, events: Sequence[Event]) -> Sequence[Event]:
        """Put events on the bus; return those that it did not accept, or whose response was lost."""
        ...


# -- feedback ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MergedFacts:
    """The facts of a request before and after an event's facts were merged; equal if the event has nothing new."""

    before: Facts
    after: Facts


class FeedbackTable(Protocol):
    """SES's reports by recipient, and the mail of each SES messageId. Every method may raise DependencyError."""

    def merge(self, tenant_id: str, request_id: str, facts: Facts) -> MergedFacts:
        """Merge facts into those of a request; safe with concurrent merges."""
        ...

    def facts(self, tenant_id: str, request_id: str) -> Facts:
        """Read the facts of a request; empty if there are none, or they were removed."""
        ...

    def forget(self, tenant_id: str, request_id: str, now: datetime) -> None:
        """Remove all facts of a request."""
        ...

    def find(self, account: str, region: str, message_id: str) -> MailRef | None:
        """Return the mail with an SES messageId."""
        ...

    def remember(self, account: str, region: str, message_id: str, mail: MailRef, told_at: datetime) -> None:
        """Store which mail has an SES messageId, for as long as facts are kept."""
        ...


class FeedbackListener(Protocol):
    """Records that SES's events of a tenant's provider arrive. Every method may raise DependencyError."""

    def event_arrived(self, tenant_id: str, version: int, at: datetime) -> None:
        """Note that an event of a config version's mail arrived at this time; called for each accepted event."""
        ...

    def verify_event_arrived(self, ref: VerifyRef, event: SesEvent) -> Refusal | None:
        """Note an event of a test mail; return why it is refused, if account or region are not those of that version."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first; `cursor` is None on the last."""

    deliveries: Sequence[Delivery]
    cursor: str | None


class MessagesTable(Protocol):
    """The status table."""

    def get(self, tenant_id: str, request_id: str) -> Delivery | None:
        """Read one record, consistently."""
        ...

    def apply(self, change: Change) -> Delivery:
        """Make one conditional write and return the record after it.

        A change that was made already (its reply was lost) succeeds.

        Raises:
            RefusedError: the record's state does not allow it.
            DependencyError: DynamoDB did not answer; the write may or may not have happened.
        """
        ...

    def list(self, tenant_id: str, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        """List a tenant's records, newest first; a cursor is valid for the list that gave it: of this tenant, with this status.

        Raises:
            KeyError: the cursor is not one of this list's.
        """
        ...

    def due(self, shard: int, now: datetime, limit: int) -> Sequence[Delivery]:
        """Return open records whose `sweepAt` has passed, longest overdue first."""
        ...

    def waiting_for_provider(self, tenant_id: str) -> Iterator[Delivery]:
        """Yield parked records of a tenant that wait for its provider, oldest first, read as they are taken."""
        ...


class RefusedError(Exception):
    """The record's state does not allow the change; `current` is the current record (None: there is none)."""

    def __init__(self, current: Delivery | None) -> None:
        super().__init__(f"not allowed from {current.status if current else 'no record'}")
        self.current = current


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMessage:
    """One message of a send request on the queue: the caller's body and our attributes."""

    body: str
    """The request's JSON; of a pointer, only its two ids."""
    tenant_id: str | None
    """The message group, by which SQS serves tenants fairly. None if the body names no tenant."""
    created_at: datetime
    generation: int = 0
    """How many messages of the request came before this one: a message below its record's generation is stale."""
    redeliveries: int = 0
    """How often SQS redelivered earlier generations: their workers had died, or could not requeue them."""
    failures: int = 0
    """How many tries have failed so far; the next wait is twice as long for each. A wait for a slot or a time is no failure."""
    parked: str | None = None
    """Where in the bucket the body is; then this is a pointer."""
    expires_at: datetime | None = None
    """When the request expires, if its record has another time than its body."""
    slot: float | None = None
    """The sending slot reserved for it, on the clock of its sending account."""
    upload_slot: float | None = None
    """The slot reserved for a large mail on the clock of its account's bandwidth."""
    proof: str | None = None
    """The outcome of an attempt that could not be written to the table: JSON of attempt, owner and outcome."""
    correlation_id: str | None = None
    sender: str | None = None
    """SQS's SenderId of the producer's first message; None if the request came from the API."""
    schema: int = 0
    """The `SCHEMA` of the function that has read the request; 0 if none has."""
    claimed: bool = False
    """Whether it has our signed attribute with an invalid signature: forged, or made with a key that was replaced."""


class SendQueue(Protocol):
    """The queue of send requests and its dead-letter queue."""

    def send(self, queue_messages: Iterable[tuple[QueueMessage, timedelta]]) -> Sequence[QueueMessage]:
        """Send each message with its delay (at most 900 s); return those that SQS did not take."""
        ...

    def dead_letter(self, queue_message: QueueMessage, *, reason: str, detail: str) -> None:
        """Put a message on the dead-letter queue with the reason as an attribute.

        Raises:
            DependencyError: SQS did not take it.
        """
        ...


class Stage(StrEnum):
    """How far a worker got with a message that it tried alone."""

    READING = "reading"
    SENDING = "sending"  # it has been read
    DONE = "done"  # only its deletion from the queue is left


@dataclass(frozen=True, slots=True)
class Trial:
    """The mark of a message that is, or was, tried alone: a worker that dies leaves it unchanged."""

    stage: Stage
    by: str
    """A token of the try."""
    at: datetime
    """When the worker last wrote the mark."""


class Trials(Protocol):
    """The marks of messages that are tried alone, by SQS's message id; a requeued message has none.

    Every method raises DependencyError if DynamoDB did not answer; the write may have happened.
    """

    def find(self, sqs_message_id: str) -> Trial | None:
        """Read a mark, consistently."""
        ...

    def begin(self, sqs_message_id: str, by: str, now: datetime) -> Trial | None:
        """Mark a message before it is read, and return None; if it is marked already, return that mark."""
        ...

    def reach(self, sqs_message_id: str, trial: Trial) -> None:
        """Record how far the try got."""
        ...

    def clear(self, sqs_message_id: str) -> None:
        """Remove the mark: the worker lives, and the message will be tried again."""
        ...


class EventSource(Protocol):
    """The event source that delivers the send queue's messages to SendFunction."""

    def running_since(self) -> datetime | None:
        """Return since when messages have been consumed without a pause; None while they are not.

        Raises:
            DependencyError: it could not be told.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPart:
    """What one of several invocations of the sweeper does, which run at the same time."""

    shards: Sequence[int]
    """The shards of the sweep index that it sweeps."""
    share: float
    """Of all that is due, and so of what a sending account can take: above 0, 1 at most."""
    ends_at: datetime


class SweepInvocations(Protocol):
    """Further invocations of the sweeper."""

    def begin(self, part: SweepPart) -> None:
        """Start one; it may be late, and it may be started twice.

        Raises:
            DependencyError: Lambda did not take it.
        """
        ...


class SweepLeases(Protocol):
    """Who sweeps a shard: one run at a time."""

    def take(self, shard: int, owner: str, now: datetime, until: datetime) -> bool:
        """Take a shard until a moment at most; False while another run has it.

        Raises:
            DependencyError: DynamoDB did not answer; the shard may be taken.
        """
        ...

    def release(self, shard: int, owner: str) -> None:
        """Let the next run have a shard at once, unless another has it already.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...


class ProducerRules(Protocol):
    """Which producers may send for which tenants."""

    def current(self) -> Producers:
        """Return the current rules.

        Raises:
            DependencyError: they could not be read.
        """
        ...


class ParkedBodies(Protocol):
    """Bodies that wait longer than the queue can delay them, in the private bucket under `parked/{tenantId}/`."""

    def park(self, tenant_id: str, request_id: str, body: str) -> str:
        """Store a body and return its key; the same body of the same request gets the same key.

        Raises:
            DependencyError: S3 did not take it.
        """
        ...

    def fetch(self, key: str) -> str:
        """Return a parked body.

        Raises:
            KeyError: there is none.
            DependencyError: S3 did not answer.
        """
        ...

    def discard(self, key: str) -> None:
        """Delete a parked body, if it is there."""
        ...


@dataclass(frozen=True, slots=True)
class ParkedBody:
    """A body in the bucket."""

    key: str
    parked_at: datetime


Step = Literal["queue", "config", "compose", "pacing", "fence", "provider", "write", "total"]
"""A step of a request: `queue` is how long its first message was on the queue, `total` the time from when it could be sent until it was."""


class Telemetry(Protocol):
    """Log lines and metrics for operators. Never fails, never sees a recipient or a body."""

    def answered(self, record: Delivery, outcome: Outcome, steps: Mapping[Step, timedelta]) -> None:
        """Log the provider's answer to the attempt in hand before it is written to the table: an `unknown` can be resolved from it.

        `steps` are those until then, `provider` among them.
        """
        ...

    def recorded(self, record: Delivery, steps: Mapping[Step, timedelta] = MappingProxyType({})) -> None:
        """Report the new state of a record, and how long the steps before it took."""
        ...

    def paced(self, wait: timedelta) -> None:
        """Report how long a message has to wait for its slot; negative if the slot has just passed."""
        ...

    def dead_lettered(self, queue_message: QueueMessage, reason: str) -> None:
        """Log a message on the dead-letter queue."""
        ...

    def provider_changed(self, event: Event) -> None:
        """Log what a call changed about a tenant's provider, as its event says it."""
        ...

    def suspended(self, tenant_id: str, version: int, error: ErrorInfo) -> None:
        """Note that a tenant's provider was suspended."""
        ...

    def feedback_silent(self, tenant_id: str, version: int, hint: str) -> None:
        """Report that a tenant has sent mail for an hour without an SES event."""
        ...

    def at_risk(self, tenant_id: str, signal: str, finding: str) -> None:
        """Report which limit of the reputation guard a tenant's mail has reached."""
        ...

    def failed(self, step: str, tenant_id: str | None, error: Exception) -> None:
        """Log that a step failed; only the error's type is written, unless it is a `MailerError`."""
        ...

    def feedback(self, status: RecipientStatus, delivered_after: timedelta | None) -> None:
        """Count a recipient whose reported status has changed, and the time from acceptance to delivery."""
        ...

    def feedback_refused(self, refusal: Refusal, event: SesEvent | None, fields: Sequence[str] = ()) -> None:
        """Count and log a refused event; None: it could not be parsed."""
        ...

    def swept(self, *, overdue: int, lag: timedelta) -> None:
        """Report how many open records are overdue, and how late the longest overdue one was swept."""
        ...


# -- statistics ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """One write of a record, from the messages table's stream."""

    sequence_number: str
    """Digits that increase within a shard of the stream."""
    old: Delivery | None
    new: Delivery


@dataclass(frozen=True, slots=True)
class Counted:
    """What one write adds to a bucket."""

    sequence_number: str
    counts: Counts


class StatisticsTable(Protocol):
    """Counts of recipients by outcome, per hour and tenant or sending account. Every method may raise DependencyError."""

    def add(self, bucket: Bucket, shard: str, counted: Sequence[Counted]) -> None:
        """Add the counts of one shard's writes, given in its order; those that were added before add nothing."""
        ...

    def read(self, series: str, since: datetime, until: datetime) -> Mapping[datetime, Counts]:
        """Return the counts of each hour from `since` on that begins before `until`, consistently; hours without counts are left out."""
        ...


class GuardedProviders(Protocol):
    """The providers table as the reputation guard uses it."""

    def get(self, tenant_id: str) -> Provider | None:
        """Read a row, consistently."""
        ...

    def suspend_at_risk(self, tenant_id: str, error: ErrorInfo, judged: Provider) -> bool:
        """Suspend an active provider, unless it was resumed since it was read; True if this call did it."""
        ...


# -- pacing --------------------------------------------------------------------------------------------------------------


class Pacer(Protocol):
    """Keeps every sending account at the rate that SES allows, together with all other functions that send for it."""

    def reserve(
        self, account: str, source: RateSource, weights: Sequence[int], carried: Sequence[float | None], now: datetime
    ) -> Sequence[Slot | RetryAt]:
        """Return for each message of an account, in order, when it may be sent.

        `weights` are the messages' recipients, `carried` the slots that their queue messages carry. Slots that are still good cost a
        read; for all other messages together one conditional write is made, or two, or none where the account is idle.

        Raises:
            DependencyError: the pacing table did not answer.
        """
        ...

    def throttled(self, account: str, now: datetime) -> datetime:
        """Slow down an account that SES has throttled; return when it sends again.

        Raises:
            DependencyError: the pacing table did not answer.
        """
        ...

    def quota_exhausted(self, account: str, now: datetime) -> datetime:
        """Pause an account whose daily quota is used up; return until when.

        Raises:
            DependencyError: the pacing table did not answer.
        """
        ...


class AccountRates(Protocol):
    """The rates of the sending accounts, to read."""

    def get(self, account: str) -> AccountRate | None:
        """Read an account's rate, consistently.

        Raises:
            DependencyError: the pacing table did not answer.
        """
        ...


class PacingTable(AccountRates, Protocol):
    """The rates of the sending accounts. Every method may raise DependencyError; the write may then have happened.

    A booking whose reply is lost leaves slots unused: the account sends a little less, never more.
    """

    def start(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        """Store an account's first rate.

        Raises:
            RateConflictError: there is one.
        """
        ...

    def book(self, account: str, booking: Booking, now: datetime) -> AccountRate:
        """Book slots and return the rate after it; the booked slots are just before its new end.

        Raises:
            RateConflictError: the rate is not as the booking expects.
        """
        ...

    def repace(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        """Replace an account's rate by this one, of the next revision; what is booked and promised stays. Return the rate after it.

        Raises:
            RateConflictError: another change came first.
        """
        ...


class RateConflictError(Exception):
    """An account's rate is not as expected; `current` is the current rate (None: there is none)."""

    def __init__(self, account_rate: AccountRate | None) -> None:
        super().__init__("the account's rate has changed")
        self.current = account_rate

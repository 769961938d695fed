"""Build a message as it would be sent, or list all problems; nothing is stored or sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailer.domain import mime
from mailer.domain.errors import Problem, RequestError
from mailer.domain.message import MAX_RAW_BYTES, EmailMessage, S3Object, SendRequest, raw_too_large
from mailer.domain.mime import Sender
from mailer.domain.provider import Provider, ProviderStatus, StoredConfig
from mailer.domain.suppressions import Suppression
from mailer.domain.uploads import file_size, largest_file
from mailer.ports import LargerFileError
from mailer.services.api.messages import MessagesDependencies, SubmittedRequest, check_tags, prepare_request, provider_rows
from mailer.services.suppressions.entries import read_entries


@dataclass(frozen=True, slots=True)
class Preview:
    """The raw message; None if problems prevent building it. Recipients that are left out are listed too, and prevent nothing."""

    mime: bytes | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()


def preview(send: SendRequest, deps: MessagesDependencies) -> Preview:
    """Build the message that would be sent.

    Raises:
        RequestError: provider_not_configured: without a config the sender is not known.
    """
    row = provider_rows([send.tenant_id], deps).get(send.tenant_id)
    config = _config(row)
    sender = Sender(config.from_address, config.from_name)
    suppressed = _suppressed(send, deps) if row and row.has_suppressions else {}
    left_out, message = _left_out(send.message, suppressed), send.message.without(suppressed)
    problems = _queue_problems(send, config, deps)
    uploads, missing = _uploads(send, deps)
    problems += missing
    if not message.recipients:
        problems.append(Problem("message", "has no recipient that is not suppressed: it would end as failed: recipient_suppressed"))
    elif not missing:
        built, faults = _composed(message, sender, uploads, deps)
        problems += faults
        if not problems:
            return Preview(built, tuple(left_out))
    return Preview(problems=(*problems, *left_out))


def _config(row: Provider | None) -> StoredConfig:
    """Return the tenant's config; one that is not verified yet is enough."""
    config = row and row.status is not ProviderStatus.DELETED and (row.active or row.candidate)
    if not config:
        raise RequestError([Problem("", "the tenant has no mail provider")], "provider_not_configured")
    return config


def _suppressed(send: SendRequest, deps: MessagesDependencies) -> Mapping[str, Suppression]:
    """Return those recipients that are suppressed now, as they are listed, and why."""
    entries = read_entries([(send.tenant_id, email) for email in send.message.listed_recipients], deps.suppressions)
    now = deps.clock.now()
    return {email: found for (_, email), entry in entries.items() if (found := entry.in_force(now))}


def _left_out(message: EmailMessage, suppressed: Mapping[str, Suppression]) -> list[Problem]:
    """Name the recipients that are left out by their places: a problem never holds an address."""
    fields = (("to", message.to), ("cc", message.cc), ("bcc", message.bcc))
    return [
        Problem(f"message.{name}[{at}]", f"is suppressed ({found.reason}): the mail goes out without this recipient")
        for name, mailboxes in fields
        for at, mailbox in enumerate(mailboxes)
        if (found := suppressed.get(mailbox.address.lower()))
    ]


def _queue_problems(send: SendRequest, config: StoredConfig, deps: MessagesDependencies) -> list[Problem]:
    problems: list[Problem] = []
    now = deps.clock.now()
    for check in (lambda: prepare_request(SubmittedRequest.of(send, now), now), lambda: check_tags(send, config)):
        try:
            check()
        except RequestError as refusal:
            problems += refusal.problems
    return problems


def _uploads(send: SendRequest, deps: MessagesDependencies) -> tuple[dict[S3Object, bytes], list[Problem]]:
    """Load the uploads; none beyond what fits into a message, which a hundred of them could exceed seventy times."""
    found: dict[S3Object, bytes] = {}
    missing: list[Problem] = []
    taken = 0
    for number, attachment in enumerate(send.message.attachments):
        if attachment.s3 is None:
            continue
        try:
            found[attachment.s3] = deps.attachments.fetch(send.tenant_id, attachment.s3, at_most=largest_file(MAX_RAW_BYTES - taken))
            taken += file_size(len(found[attachment.s3]))
        except LargerFileError as larger:
            return found, [*missing, raw_too_large(taken + file_size(larger.size))]
        except RequestError as refusal:
            missing += [Problem(f"message.attachments[{number}].s3", p.problem) for p in refusal.problems]
    return found, missing


def _composed(
    message: EmailMessage, sender: Sender, uploads: dict[S3Object, bytes], deps: MessagesDependencies
) -> tuple[bytes | None, list[Problem]]:
    load = uploads.__getitem__
    try:
        return mime.compose(message, sender, date=deps.clock.now(), load=load).mime, []
    except RequestError as refusal:
        return None, mime.problems(message, sender, load=load) or list(refusal.problems)

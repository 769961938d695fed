"""Build a message as it would be sent, or say everything that stands in the way; nothing is stored or sent."""

from dataclasses import dataclass, field

from mailer.domain import mime
from mailer.domain.errors import Problem, RequestError
from mailer.domain.message import EmailMessage, S3Object, SendRequest
from mailer.domain.mime import Sender
from mailer.domain.provider import ProviderStatus, StoredConfig
from mailer.services.api.messages import MessagesDependencies, SubmittedRequest, check_tags, prepare_request, provider_rows


@dataclass(frozen=True, slots=True)
class Preview:
    """The raw message; None where problems keep it from being built."""

    mime: bytes | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()


def preview(send: SendRequest, deps: MessagesDependencies) -> Preview:
    """Build what would be sent.

    Raises:
        RequestError: provider_not_configured; without a config the sender is not known.
    """
    config = _config(send.tenant_id, deps)
    sender = Sender(config.from_address, config.from_name)
    problems = _queue_problems(send, config, deps)
    uploads, missing = _uploads(send, deps)
    problems += missing
    if not missing:
        built, faults = _composed(send.message, sender, uploads, deps)
        problems += faults
        if not problems:
            return Preview(built)
    return Preview(problems=tuple(problems))


def _config(tenant_id: str, deps: MessagesDependencies) -> StoredConfig:
    """Return what the mail would go out by; a config that waits to be verified will do."""
    row = provider_rows([tenant_id], deps).get(tenant_id)
    config = row and row.status is not ProviderStatus.DELETED and (row.active or row.candidate)
    if not config:
        raise RequestError([Problem("", "the tenant has no mail provider")], "provider_not_configured")
    return config


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
    found: dict[S3Object, bytes] = {}
    missing: list[Problem] = []
    for number, attachment in enumerate(send.message.attachments):
        if attachment.s3 is None:
            continue
        try:
            found[attachment.s3] = deps.attachments.fetch(send.tenant_id, attachment.s3)
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

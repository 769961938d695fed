"""The parts of Amazon SES that the emulator lacks: limits, sending rates, and a ledger of the accepted bytes.

`SesGate` is the gate of a `FaultProxy`. It makes SES's checks of a raw message, leaves signature, policy, identities and sandbox to the
emulator, and stores each accepted mail: `NNNNNN-messageId.eml` (byte-exact) and `NNNNNN-messageId.json` (the envelope).
Without an emulator it accepts every well-formed mail: an SES for benchmarks and for tests of one adapter.
"""

import asyncio
import base64
import binascii
import json
import logging
import re
import smtplib
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from email import policy
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes
from uuid import uuid4

from tools.local_aws.faults import error_response
from tools.local_aws.feedback import Feedback
from tools.local_aws.proxy import Forward
from tools.local_aws.ses_events import AcceptedMail
from tools.local_aws.wire import Request, Response

MAX_MESSAGE = {"SendRawEmail": 10_485_760, "SendEmail": 41_943_040}  # bytes of raw message: SES API v1, and v2
BAD_INPUT = {"SendRawEmail": "InvalidParameterValue", "SendEmail": "BadRequestException"}
THROTTLED = {"SendRawEmail": "Throttling", "SendEmail": "TooManyRequestsException"}
BANDWIDTH_FROM = 10_485_760  # bytes; larger mails count towards the bandwidth
BANDWIDTH = 40_000_000.0  # bytes of larger mails per second: https://docs.aws.amazon.com/ses/latest/dg/quotas.html
MAX_RECIPIENTS = 50
MAX_LINE = 998  # bytes without CRLF, RFC 5322; SES requires it too
DAY = 86_400.0  # seconds
# https://docs.aws.amazon.com/ses/latest/dg/header-fields.html, and the fields that RFC 5322 §3.6 allows only once
_ONCE = """
    accept-language acceptlanguage archived-at auto-submitted bounces-to comments content-alternative content-base content-class
    content-description content-disposition content-duration content-id content-language content-length content-location content-md5
    content-transfer-encoding content-type date delivered-to disposition-notification-options disposition-notification-to dkim-signature
    domainkey-signature errors-to from importance in-reply-to keywords list-archive list-help list-id list-owner list-post list-subscribe
    list-unsubscribe list-unsubscribe-post message-context message-id mime-version organization original-from original-message-id
    original-recipient original-subject precedence priority references reply-to return-path return-receipt-to sender sensitivity
    solicitation subject thread-index thread-topic user-agent vbr-info to cc bcc
"""
SINGULAR = frozenset(_ONCE.split())
_ADDRESS = re.compile(r"[\x21-\x7e]+@[A-Za-z0-9.-]+")
_MESSAGE_ID = re.compile(rb"(?:<MessageId>|\"MessageId\": *\")([^<@\"]+)")  # the emulator adds a domain; SES does not


class RefusedError(Exception):
    """SES rejects this message; the arguments are its error code and text."""


@dataclass(frozen=True, slots=True)
class RawSend:
    """One call that sends a raw message, of v1 (SendRawEmail) or v2 (SendEmail)."""

    operation: str
    raw: bytes
    source: str
    destinations: tuple[str, ...]
    configuration_set: str
    tags: Mapping[str, str]

    @classmethod
    def read(cls, request: Request) -> "RawSend":
        return cls._of_v2(request.body) if request.operation == "SendEmail" else cls._of_v1(request.body)

    @classmethod
    def _of_v2(cls, document: bytes) -> "RawSend":
        """Parse a v2 request. Raises: `RefusedError` for content that is not raw, which the service never sends."""
        try:
            asked = json.loads(document)
            raw = base64.b64decode(asked["Content"]["Raw"]["Data"], validate=True)
        except (ValueError, KeyError) as error:
            raise RefusedError("BadRequestException", "Content.Raw.Data is missing or not base64") from error
        listed = asked.get("Destination", {})
        destinations = [address for name in ("ToAddresses", "CcAddresses", "BccAddresses") for address in listed.get(name, [])]
        tags = {tag["Name"]: tag["Value"] for tag in asked.get("EmailTags", [])}
        envelope = (asked.get("FromEmailAddress", ""), tuple(destinations or _header_recipients(raw)))
        return cls("SendEmail", raw, *envelope, asked.get("ConfigurationSetName", ""), tags)

    @classmethod
    def _of_v1(cls, form: bytes) -> "RawSend":
        fields = [part.partition(b"=") for part in form.split(b"&")]
        data = next((value for name, _, value in fields if name == b"RawMessage.Data"), b"")
        rest = b"&".join(name + b"=" + value for name, _, value in fields if name != b"RawMessage.Data")
        text = {name: values[0] for name, values in parse_qs(rest.decode("ascii", "replace"), keep_blank_values=True).items()}
        raw = _decode(data)
        tags = {
            text[name]: text.get(name.removesuffix("Name") + "Value", "") for name in text if re.fullmatch(r"Tags\.member\.\d+\.Name", name)
        }
        destinations = [text[name] for name in text if name.startswith("Destinations.member.")]
        envelope = (text.get("Source", ""), tuple(destinations or _header_recipients(raw)))
        return cls("SendRawEmail", raw, *envelope, text.get("ConfigurationSetName", ""), tags)

    def check(self) -> None:
        """Reject what SES rejects before it checks identities, with its own texts.

        Raises: `RefusedError`
        """
        most = MAX_MESSAGE[self.operation]
        if len(self.raw) > most:
            raise self._refusal(f"Message length is more than {most} bytes long: '{len(self.raw)}'.")
        names = Counter(_header_names(self.raw))
        if not names["from"]:
            raise self._refusal("Missing required header 'From'.")
        for name, times in names.items():
            if times > 1 and name in SINGULAR:
                raise self._refusal(f"Duplicate header '{name.title()}'.")
        if not self.destinations:
            raise self._refusal("Missing required header 'To'.")
        if len(self.destinations) > MAX_RECIPIENTS:
            raise self._refusal(f"Recipient count exceeds {MAX_RECIPIENTS}.")
        for address in self.destinations:
            if not _ADDRESS.fullmatch(getaddresses([address])[0][1]):
                raise self._refusal(_address_fault(address))
        if max(map(len, self.raw.split(b"\r\n"))) > MAX_LINE:
            raise self._refusal(f"Line is longer than {MAX_LINE} bytes.")

    def _refusal(self, text: str) -> RefusedError:
        return RefusedError(BAD_INPUT[self.operation], text)


@dataclass(frozen=True, slots=True)
class Mail:
    """One accepted mail: its envelope, and the file with its bytes."""

    number: int
    message_id: str
    time: float
    access_key: str
    account: str
    region: str
    source: str
    destinations: tuple[str, ...]
    size: int
    configuration_set: str
    tags: Mapping[str, str]
    eml: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Ledger:
    """All accepted mails, in the order of acceptance; none is ever removed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._shown_from = 0
        self.mails: list[Mail] = []

    def add(self, send: RawSend, request: Request, account: str, message_id: str) -> Mail:
        number = len(self.mails) + 1
        name = f"{number:06}-{message_id}"
        eml = self._folder / f"{name}.eml"
        eml.write_bytes(send.raw)
        who = (request.access_key, account, request.region, send.source, send.destinations)
        mail = Mail(number, message_id, time.time(), *who, len(send.raw), send.configuration_set, send.tags, str(eml))
        (self._folder / f"{name}.json").write_text(json.dumps(mail.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
        self.mails.append(mail)
        return mail

    def shown(self, **wanted: str) -> list[Mail]:
        """List the mails since the last `forget`, of one access key or account if given."""
        return [mail for mail in self.mails[self._shown_from :] if all(getattr(mail, name) == value for name, value in wanted.items())]

    def forget(self) -> None:
        self._shown_from = len(self.mails)


@dataclass(slots=True)
class Allowance:
    """An account's sending limits; 0 means none. As on SES, a message to many recipients may exceed the rate and delay later ones."""

    max_send_rate: float = 0.0  # recipients per second
    max_24_hour_send: float = 0.0  # recipients
    tokens: float = 0.0
    refilled: float = 0.0
    sent: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.tokens = max(1.0, self.max_send_rate)

    def take(self, recipients: int, now: float) -> tuple[float, int]:
        """Count a message, or reject it; return the argument of `refund`.

        Raises: `RefusedError`
        """
        self._refill(now)
        if self.max_24_hour_send and self.used(now) + recipients > self.max_24_hour_send:
            raise RefusedError("Throttling", "Daily message quota exceeded.")
        if self.max_send_rate and self.tokens < 1:
            raise RefusedError("Throttling", "Maximum sending rate exceeded.")
        self.tokens -= recipients
        self.sent.append((now, recipients))
        return self.sent[-1]

    def refund(self, taken: tuple[float, int]) -> None:
        """Undo a `take` for a message that the emulator then rejected."""
        self.tokens += taken[1]
        self.sent.remove(taken)

    def used(self, now: float) -> int:
        while self.sent and self.sent[0][0] <= now - DAY:
            self.sent.popleft()
        return sum(count for _, count in self.sent)

    def _refill(self, now: float) -> None:
        if self.refilled:
            self.tokens = min(max(1.0, self.max_send_rate), self.tokens + (now - self.refilled) * self.max_send_rate)
        self.refilled = now


@dataclass(slots=True)
class Bandwidth:
    """Bandwidth limit of an account's large mails, with a burst of one second's worth."""

    used_until: float = 0.0

    def take(self, size: int, now: float) -> None:
        """Count a mail, or reject it.

        Raises: `RefusedError`
        """
        if size <= BANDWIDTH_FROM:
            return
        if self.used_until > now + 1:
            raise RefusedError("Throttling", "Maximum sending bandwidth exceeded.")
        self.used_until = max(self.used_until, now) + size / BANDWIDTH


class SesGate:
    """Handle SES requests: check, forward to the emulator, store the accepted mail, publish its events, relay it if configured."""

    def __init__(self, ledger: Ledger, feedback: Feedback, *, standalone: bool = False) -> None:
        self.ledger = ledger
        self.feedback = feedback
        self.relay: tuple[str, int] | None = None
        self._standalone = standalone
        self.limits: dict[str, Allowance] = {}
        self._bandwidths: dict[str, Bandwidth] = {}
        self._relaying: set[asyncio.Task[None]] = set()

    def limit(self, account: str, max_send_rate: float, max_24_hour_send: float) -> None:
        self.limits[account] = Allowance(max_send_rate, max_24_hour_send)

    async def answer(self, request: Request, account: str, forward: Forward) -> Response:
        if request.operation in MAX_MESSAGE:
            return await self._send(request, account, forward)
        if request.operation == "GetSendQuota" and account in self.limits:
            response = await self._ask(request, forward)
            return self._quota(account) if response.status == 200 else response
        return await self._ask(request, forward)

    async def _send(self, request: Request, account: str, forward: Forward) -> Response:
        allowance = self.limits.get(account, Allowance())
        try:
            send = RawSend.read(request)
            send.check()
            self._bandwidths.setdefault(account, Bandwidth()).take(len(send.raw), time.monotonic())
            taken = allowance.take(len(send.destinations), time.monotonic())
        except RefusedError as refused:
            code, text = refused.args
            throttled = code == "Throttling"
            status = 429 if throttled and request.operation == "SendEmail" else 400
            return error_response(request, status, THROTTLED[request.operation] if throttled else code, text)
        response = await self._ask(request, forward)
        found = _MESSAGE_ID.search(response.body)
        if response.status != 200 or not found:
            allowance.refund(taken)
            return response
        mail = self.ledger.add(send, request, account, found[1].decode())
        self.feedback.accepted(_told(mail, send))
        self._pass_on(mail, send)
        return _accepted(request.operation, mail.message_id)

    async def _ask(self, request: Request, forward: Forward) -> Response:
        if not self._standalone:
            return await forward(request)
        if request.operation in MAX_MESSAGE:
            return _accepted(request.operation, str(uuid4()))
        return error_response(request, 403, "AccessDenied", "This SES supports sending only.")

    def _quota(self, account: str) -> Response:
        allowance = self.limits[account]
        numbers = {
            "Max24HourSend": allowance.max_24_hour_send or -1.0,  # SES's value for unlimited
            "MaxSendRate": allowance.max_send_rate,
            "SentLast24Hours": float(allowance.used(time.monotonic())),
        }
        return _query_answer("GetSendQuota", "".join(f"<{name}>{value}</{name}>" for name, value in numbers.items()))

    def _pass_on(self, mail: Mail, send: RawSend) -> None:
        if self.relay:
            task = asyncio.create_task(asyncio.to_thread(_deliver, self.relay, mail, send.raw))
            self._relaying.add(task)
            task.add_done_callback(self._relaying.discard)


def _told(mail: Mail, send: RawSend) -> AcceptedMail:
    """Return the data of a mail's events."""
    return AcceptedMail(
        message_id=mail.message_id,
        account=mail.account,
        region=mail.region,
        source=mail.source,
        destinations=mail.destinations,
        configuration_set=mail.configuration_set,
        tags=mail.tags,
        raw=send.raw,
        accepted_at=mail.time,
    )


def _deliver(relay: tuple[str, int], mail: Mail, raw: bytes) -> None:
    try:
        with smtplib.SMTP(*relay, timeout=10) as smtp:
            smtp.sendmail(mail.source, mail.destinations, raw)
    except OSError as error:  # SMTPException is an OSError
        logging.getLogger(__name__).warning("mail %s was not relayed: %s", mail.message_id, error)


def _accepted(operation: str, message_id: str) -> Response:
    if operation == "SendEmail":
        return Response.make(200, json.dumps({"MessageId": message_id}).encode(), "application/json")
    return _query_answer("SendRawEmail", f"<MessageId>{message_id}</MessageId>")


def _query_answer(operation: str, inner: str) -> Response:
    result = f"<{operation}Result>{inner}</{operation}Result>"
    metadata = f"<ResponseMetadata><RequestId>{uuid4()}</RequestId></ResponseMetadata>"
    body = f'<{operation}Response xmlns="http://ses.amazonaws.com/doc/2010-12-01/">{result}{metadata}</{operation}Response>'
    return Response.make(200, body.encode(), "text/xml")


def _decode(data: bytes) -> bytes:
    """Decode the form's escaping and the base64; the replacements avoid slow decoding of millions of `%2B` and `%2F`."""
    data = data.replace(b"%2B", b"+").replace(b"%2F", b"/").replace(b"%3D", b"=")
    try:
        return base64.b64decode(unquote_to_bytes(data) if b"%" in data else data, validate=True)
    except binascii.Error as error:
        raise RefusedError("SerializationException", "RawMessage.Data is not base64") from error


def _header_names(raw: bytes) -> list[str]:
    head = raw.partition(b"\r\n\r\n")[0].partition(b"\n\n")[0]
    return [line.partition(b":")[0].strip().decode("latin-1").lower() for line in head.splitlines() if line[:1] not in (b" ", b"\t")]


def _header_recipients(raw: bytes) -> list[str]:
    headers = BytesHeaderParser(policy=policy.compat32).parsebytes(raw)
    return [address for _, address in getaddresses([str(value) for name in ("to", "cc", "bcc") for value in headers.get_all(name, [])])]


def _address_fault(address: str) -> str:
    local, at, domain = address.rpartition("@")
    if not at or not domain:
        return "Missing final '@domain'"
    if not re.fullmatch(r"[\x21-\x7e]+", local):
        return "Local address contains control or whitespace"
    return "Domain contains illegal character"

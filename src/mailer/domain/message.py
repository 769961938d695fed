"""The send request and the mail in it, validated completely before anything is built."""

import binascii
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from mailer.domain import file_types, header_text
from mailer.domain.addresses import MAX_WRITTEN, address_fault, ascii_address, same_mailbox
from mailer.domain.errors import Problem, RequestError
from mailer.domain.large_mail import LARGE_BYTES
from mailer.domain.tags import OWN_TAGS, RESERVED
from mailer.domain.wire import STRICT_BOOL, Path, WireModel, at_most, checked, fault, faults, load_object, matching, parse

MAX_RAW_BYTES = LARGE_BYTES
MAX_RECIPIENTS = 50  # SES: To, Cc and Bcc of one message together
MAX_LISTED = 100  # entries of to, cc and bcc together: leaves room for duplicates, which are sent once
MAX_REPLY_TO = 50
MAX_HEADERS = 100
MAX_TAGS = 50 - OWN_TAGS  # SES: 50 tags a message
MAX_PARTS = 100  # bodies and attachments of one message
MAX_AHEAD = timedelta(days=7)
DEFAULT_LIFE = timedelta(hours=24)
MAX_BODY = 1024 * 1024 - 4096
"""Bytes of a request on the queue, its bodies included: SQS takes 1 MiB, and each message has attributes, which count."""
MAX_MARKUP = 30_000
"""Tags and character references of a page from which the text is derived; each costs some microseconds."""
BASE64_LINE = 76  # characters, RFC 2045 §6.8

TENANT_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
REQUEST_ID: Final = r"(?!(?:batch|preview)\Z)[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"


TenantId = Annotated[str, matching(TENANT_ID, "1 to 64 letters, digits, _ and -, the first a letter or digit", longest=64)]
RequestId = Annotated[
    str,
    matching(
        REQUEST_ID, "1 to 128 letters, digits and . _ : -, the first a letter or digit, and neither 'batch' nor 'preview'", longest=128
    ),
]
# Limits first: longer text is not looked at.
Address = Annotated[str, Field(max_length=MAX_WRITTEN), checked(address_fault)]
HEADER_TEXT: Final = checked(header_text.text_fault)
DisplayName = Annotated[str, Field(max_length=header_text.MAX_DISPLAY_NAME), HEADER_TEXT]
Subject = Annotated[str, Field(max_length=header_text.MAX_SUBJECT), HEADER_TEXT]
Text = Annotated[
    str, at_most(MAX_BODY, "all that a request has on the queue; what can be a file is attached and uploaded first (POST …/attachments)")
]
Tag = Annotated[str, matching(r"[A-Za-z0-9_-]{1,256}", "1 to 256 letters, digits, _ and -", longest=256)]
Flag = Annotated[bool, STRICT_BOOL]

# RFC 3986, with percent-encoding for everything else; no encoded-word can be hidden in it.
_URL_REST = r"(?!.*=\?[^?]*\?[bBqQ]\?)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]"


class Mailbox(WireModel):
    """One address with the name to show for it."""

    SHAPE: ClassVar = '{"email": "…", "name": "…"}'

    email: Address
    name: DisplayName | None = None

    @property
    def address(self) -> str:
        """The addr-spec for headers and envelope, its domain in punycode."""
        return ascii_address(self.email)


_VERSION_ID = r"[A-Za-z0-9._-]{1,1024}"


class S3Object(WireModel):
    """An attachment uploaded before; the key starts with the tenant's id."""

    key: Annotated[
        str,
        matching(
            r"(?=.{3,512}\Z)[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", "a key as the upload answered it: tenantId/…", longest=512
        ),
    ]
    version_id: Annotated[str, matching(_VERSION_ID, "a version id as the upload answered it", longest=1024)] | None = None

    _pinned: str | None = PrivateAttr(None)
    """The version that was there when the request was accepted; the caller's field is not changed."""

    @property
    def version(self) -> str | None:
        """The version to send: the named one, or else the one that was there when the request was accepted."""
        return self.version_id or self._pinned

    def pinned(self, version: str | None) -> Self:
        """Return the same reference, to one version of the object."""
        copy = self.model_copy()
        copy._pinned = version  # noqa: SLF001 - its own
        return copy


_ATOM = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,127}"
# Parameters as in RFC 2045, but not those that we set ourselves or that change where the part ends, and no encoded-word.
_PARAMETER = rf'(?:; ?(?!(?ai:name|filename|boundary))({_ATOM})=({_ATOM}|"(?![^"]*=\?)[ !#-\[\]-~]{{0,127}}"))'
_MEDIA_TYPE = rf"(?!(?ai:multipart)/|(?ai:message)/(?!(?ai:rfc822)\Z)){_ATOM}/{_ATOM}(?:{_PARAMETER}){{0,8}}"
_LONGEST_TYPE = 2 * 127 + 1 + 8 * (2 + 127 + 1 + 129)
_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _base64_fault(content: str) -> str | None:
    """Check base64 without decoding it: length, alphabet, padding, and no bits lost in the last quantum."""
    if len(content) % 4 == 0 and content.isascii():
        padding = content.encode("ascii").translate(None, _BASE64_ALPHABET)
        if padding in (b"", b"=", b"==") and content.endswith(padding.decode()) and _last_quantum_is_whole(content[-4:]):
            return None
    return "must be base64 with the standard alphabet, padded, without blanks or line breaks (RFC 4648 §4)"


def _last_quantum_is_whole(quantum: str) -> bool:
    try:
        return binascii.b2a_base64(binascii.a2b_base64(quantum), newline=False).decode() == quantum
    except binascii.Error:
        return False


def _filename_fault(filename: str) -> str | None:
    if not filename.strip():
        return "must not be blank"
    return header_text.text_fault(filename)


def _taken_by_ses(filename: str) -> str:
    if file_types.is_blocked(filename):
        raise fault("has an extension that SES refuses", code="attachment_type_blocked")
    return filename


TAKEN_BY_SES: Final = AfterValidator(_taken_by_ses)


class Attachment(WireModel):
    """A file, inline in the request as base64 or uploaded before; exactly one of the two."""

    SHAPE: ClassVar = '{"filename": "…", "content": "<base64>"} or {"filename": "…", "s3": {"key": "…"}}'

    filename: Annotated[str, Field(max_length=header_text.MAX_FILENAME), checked(_filename_fault), TAKEN_BY_SES]
    content_type: (
        Annotated[
            str,
            matching(
                _MEDIA_TYPE,
                "type/subtype, parameters after ';' if any; no multipart/*, no message/* but message/rfc822",
                longest=_LONGEST_TYPE,
            ),
        ]
        | None
    ) = None
    disposition: Literal["attachment", "inline"] | None = None
    content_id: (
        Annotated[
            str,
            matching(
                r"[A-Za-z0-9!#$%&'*+/=^_`{|}~.@-]{1,200}", "1 to 200 letters, digits and !#$%&'*+/=^_`{|}~.@-, without < >", longest=200
            ),
        ]
        | None
    ) = None
    content: Annotated[str, at_most(MAX_RAW_BYTES, "all that SES takes of a raw message"), checked(_base64_fault)] | None = None
    s3: S3Object | None = Field(default=None, validate_default=True)

    @field_validator("s3")
    @classmethod
    def _has_one_source(cls, s3: S3Object | None, info: ValidationInfo) -> S3Object | None:
        if "content" in info.data and (info.data["content"] is None) == (s3 is None):
            raise fault("must have either content or s3", ())
        return s3

    @property
    def media_type(self) -> str:
        """The media type: as given, or by the file name."""
        return self.content_type or file_types.media_type(self.filename)

    @property
    def is_message(self) -> bool:
        """Whether this is a mail inside the mail."""
        return self.media_type.lower() == "message/rfc822"  # it is ASCII: no other character can become one of these

    @property
    def shown(self) -> Literal["attachment", "inline"]:
        """The disposition: as given, or else inline for a part with a contentId."""
        return self.disposition or _default_disposition(self.content_id)


def _default_disposition(content_id: str | None) -> Literal["attachment", "inline"]:
    return "inline" if content_id else "attachment"


_MAX_QUERY = 500  # characters


def _mailto_fault(mailto: str) -> str | None:
    address, _, query = mailto.partition("?")
    if problem := address_fault(address):
        return f"{problem}; without 'mailto:'"
    if query and not re.fullmatch(rf"{_URL_REST}{{1,{_MAX_QUERY}}}", query):
        return f"must have a query of at most {_MAX_QUERY} URL characters"
    return None


class ListUnsubscribe(WireModel):
    """How to leave the list: List-Unsubscribe, and with `oneClick` List-Unsubscribe-Post (RFC 8058)."""

    # 990: with its brackets it must fit into a line of 998, because it may not be folded or encoded.
    url: (
        Annotated[str, matching(rf"(?=.{{9,990}}\Z)https?://{_URL_REST}+", "an http(s) URL of at most 990 ASCII characters", longest=990)]
        | None
    ) = None
    mailto: Annotated[str, Field(max_length=MAX_WRITTEN + 1 + _MAX_QUERY), checked(_mailto_fault)] | None = Field(
        default=None, validate_default=True
    )
    one_click: Flag = Field(default=False, validate_default=True)

    @field_validator("mailto")
    @classmethod
    def _has_a_way(cls, mailto: str | None, info: ValidationInfo) -> str | None:
        if mailto is None and info.data.get("url", "faulty") is None:
            raise fault("must have a url, a mailto or both", ())
        return mailto

    @field_validator("one_click")
    @classmethod
    def _one_click_needs_https(cls, one_click: Flag, info: ValidationInfo) -> bool:
        if one_click and not (info.data.get("url", "https://faulty") or "").startswith("https://"):
            raise fault("must be an https URL where oneClick is true (RFC 8058)", ("url",))
        return one_click


class Calendar(WireModel):
    """An iCalendar invite that goes out as an alternative of the text."""

    method: Literal["PUBLISH", "REQUEST", "REPLY", "ADD", "CANCEL", "REFRESH", "COUNTER", "DECLINECOUNTER"]
    content: Text

    @field_validator("content")
    @classmethod
    def _method_is_the_content_s(cls, content: str, info: ValidationInfo) -> str:
        if not re.match(r"BEGIN:VCALENDAR\r?\n", content, re.IGNORECASE | re.ASCII):
            raise fault("must be an iCalendar object: BEGIN:VCALENDAR and so on")
        stated = re.search(r"^METHOD:([^\r\n]*)", content, re.MULTILINE | re.IGNORECASE | re.ASCII)
        if stated and not (stated[1].isascii() and stated[1].strip().upper() == info.data.get("method", stated[1].strip().upper())):
            raise fault("must be the METHOD of the content (RFC 6047)", ("method",))
        return content


def _list_of_mailboxes(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise fault(f"must be a list of {Mailbox.SHAPE}")
    return value


def _list_of_one(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Mailboxes = Annotated[tuple[Mailbox, ...], Field(max_length=MAX_LISTED), BeforeValidator(_list_of_mailboxes)]
_OneOrMore = Mailbox | Annotated[tuple[Mailbox, ...], Field(max_length=MAX_REPLY_TO)]
ReplyTo = Annotated[tuple[Mailbox, ...], Field(max_length=MAX_REPLY_TO), BeforeValidator(_list_of_one, json_schema_input_type=_OneOrMore)]
HeaderName = Annotated[str, Field(max_length=header_text.MAX_NAME)]
HeaderValue = Annotated[str, Field(max_length=header_text.MAX_VALUE)]

_SENDER = "is not a field of a message: the sender is the tenant's, fromAddress and fromName of its provider config"


class EmailMessage(WireModel):
    """The mail as the caller describes it; without the sender, which is the tenant's."""

    NOT_FIELDS: ClassVar = dict.fromkeys(("from", "sender", "fromAddress", "fromName", "fromEmail"), _SENDER)

    to: Mailboxes = ()
    cc: Mailboxes = ()
    bcc: Mailboxes = Field(default=(), validate_default=True)
    reply_to: ReplyTo = ()
    subject: Subject
    html: Text | None = None
    text: Text | None = None
    text_from_html: Flag = Field(default=True, validate_default=True)
    calendar: Calendar | None = None
    list_unsubscribe: ListUnsubscribe | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=MAX_HEADERS)
    tags: dict[Tag, Tag] = Field(default_factory=dict, max_length=MAX_TAGS)
    attachments: tuple[Attachment, ...] = Field(default=(), validate_default=True, max_length=MAX_PARTS)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_short(cls, fields: object) -> object:
        """Count before any address is looked at."""
        count = 0
        if isinstance(fields, dict):
            for name in ("to", "cc", "bcc"):
                if isinstance(listed := fields.get(name), list):
                    count += len(listed)
        if count > MAX_LISTED:
            raise fault(f"has {count} entries in to, cc and bcc together; at most {MAX_LISTED} are taken, duplicates among them")
        return fields

    @field_validator("text_from_html")
    @classmethod
    def _text_can_be_derived(cls, text_from_html: Flag, info: ValidationInfo) -> bool:
        html = info.data.get("html")
        if text_from_html and html and not info.data.get("text", "faulty"):
            markup = html.count("<") + html.count("&")
            if markup > MAX_MARKUP:
                problem = f"has {markup} tags and character references; text is derived from at most {MAX_MARKUP}"
                raise fault(f"{problem}: give the text too, or textFromHtml: false", ("html",))
        return text_from_html

    @field_validator("bcc")
    @classmethod
    def _recipients_are_1_to_50(cls, bcc: tuple[Mailbox, ...], info: ValidationInfo) -> tuple[Mailbox, ...]:
        if "to" not in info.data or "cc" not in info.data:
            return bcc
        count = len(_distinct((*info.data["to"], *info.data["cc"], *bcc)))
        if not count:
            raise fault("must name at least one recipient in to, cc or bcc", ("to",))
        if count > MAX_RECIPIENTS:
            raise fault(f"has {count} recipients; SES takes {MAX_RECIPIENTS} in to, cc and bcc together", ("to",))
        return bcc

    @field_validator("tags")
    @classmethod
    def _tags_are_the_callers(cls, tags: dict[str, str]) -> dict[str, str]:
        problem = f"is a tag of the service's own: names that begin with {RESERVED} are reserved"
        if taken := [(("tags", name), problem) for name in tags if name.startswith(RESERVED)]:
            raise faults(taken)
        return tags

    @field_validator("headers")
    @classmethod
    def _headers_are_safe_and_single(cls, headers: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        taken = {"list-unsubscribe", "list-unsubscribe-post"} if info.data.get("list_unsubscribe") else set()
        found: list[tuple[Path, str]] = []
        for name, value in headers.items():
            problems = [header_text.name_fault(name), header_text.value_fault(name, value)]
            if name.lower() in taken:
                problems.append("must be given once, whatever its case, and not beside listUnsubscribe")
            taken.add(name.lower())
            found += [(("headers", name), problem) for problem in problems if problem]
        if found:
            raise faults(found)
        return headers

    @field_validator("attachments")
    @classmethod
    def _parts_fit_together(cls, attachments: tuple[Attachment, ...], info: ValidationInfo) -> tuple[Attachment, ...]:
        bodies = [info.data.get(name, "faulty") for name in ("text", "html", "calendar")]
        if bodies[:2] == [None, None] and not attachments:
            raise fault("must have text, html or an attachment", ())
        parts = sum(body is not None for body in bodies) + len(attachments)
        if parts > MAX_PARTS:
            raise fault(f"has {parts} parts; at most {MAX_PARTS} bodies and attachments are taken", ("attachments",))
        ids = [attachment.content_id for attachment in attachments]
        again: list[Path] = [("attachments", at, "contentId") for at, one in enumerate(ids) if one and one in ids[:at]]
        if again:
            raise fault("must be different from that of every other attachment", *again)
        least = sum(map(_least_size, attachments)) + sum(len(body) for body in bodies if isinstance(body, str))
        if least > MAX_RAW_BYTES:
            raise fault(f"would make a raw message of more than {least} bytes; SES takes {MAX_RAW_BYTES}", (), code="message_too_large")
        return attachments

    @property
    def most_bytes(self) -> int:
        """The most bytes of the raw message, before uploads are loaded: SES's limit if there are any."""
        return MAX_RAW_BYTES if any(attachment.s3 for attachment in self.attachments) else min(MAX_RAW_BYTES, self.inline_bytes)

    @property
    def inline_bytes(self) -> int:
        """The most bytes of the raw message without its uploads."""
        calendar = self.calendar.content if self.calendar else ""
        characters = sum(len(body or "") for body in (self.text, self.html, calendar))
        return sum(map(_least_size, self.attachments)) + _MOST_PER_CHARACTER * characters + _MUCH_HEADER

    @property
    def recipients(self) -> tuple[str, ...]:
        """The envelope: each mailbox of to, cc and bcc once, in that order."""
        return _distinct((*self.to, *self.cc, *self.bcc))

    @property
    def listed_recipients(self) -> tuple[str, ...]:
        """The recipients as `suppressions.suppression_key` lists them, each once."""
        return tuple(dict.fromkeys(address.lower() for address in self.recipients))

    def without(self, suppressed: Collection[str]) -> Self:
        """Return the message without these recipients, which are given as they are listed: in headers and envelope."""
        if not suppressed:
            return self
        return self.model_copy(update={name: _left(getattr(self, name), suppressed) for name in ("to", "cc", "bcc")})


_MOST_PER_CHARACTER = 11
"""Bytes of the raw message: four of UTF-8 in lines of base64, and as much again for text derived from HTML."""

_MUCH_HEADER = 65_536
"""Bytes of the headers of a message and its parts; no limit, but far more than any sender needs."""


def _left(mailboxes: tuple[Mailbox, ...], suppressed: Collection[str]) -> tuple[Mailbox, ...]:
    return tuple(mailbox for mailbox in mailboxes if mailbox.address.lower() not in suppressed)


def _distinct(mailboxes: Iterable[Mailbox]) -> tuple[str, ...]:
    addresses = (mailbox.address for mailbox in mailboxes)
    first: dict[str, str] = {}
    for address in addresses:
        first.setdefault(same_mailbox(address), address)
    return tuple(first.values())


def base64_size(characters: int) -> int:
    """Return the octets of so many characters of base64 in lines, with CRLF between them."""
    return characters + 2 * (max(characters - 1, 0) // BASE64_LINE)


def _least_size(attachment: Attachment) -> int:
    if attachment.content is None:
        return 0
    # An attached mail may go out as it is.
    return len(attachment.content) * 3 // 4 - 2 if attachment.is_message else base64_size(len(attachment.content))


# RFC 3339, always with an offset; pydantic's own parser also takes plain numbers and local times.
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def _read_time(value: object) -> object:
    """Convert an RFC 3339 time, or one of our own datetimes, to UTC."""
    try:
        if isinstance(value, str) and _TIMESTAMP.fullmatch(value):
            value = datetime.fromisoformat(value)
        if value is None or (isinstance(value, datetime) and value.tzinfo):
            return value and value.astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February, or before the year 1 in UTC
        pass
    raise fault("must be a time with its offset, such as 2026-11-25T08:00:00Z")


UtcTime = Annotated[datetime, BeforeValidator(_read_time)]


SCHEMA = 1
"""Version of a send request's fields, raised with each new field. Queue messages carry it: after a roll-back the older release defers a
request that the later one has accepted, and does not refuse it for a field that it does not know."""


class SendRequest(WireModel):
    """One mail to send for one tenant, identified by (tenantId, requestId)."""

    NOT_FIELDS: ClassVar = {f"message.{name}": problem for name, problem in EmailMessage.NOT_FIELDS.items()}

    tenant_id: TenantId
    request_id: RequestId
    on_unknown: Literal["hold", "resend"] = "hold"
    send_at: UtcTime | None = None
    expires_at: UtcTime | None = None
    message: EmailMessage

    @field_validator("message")
    @classmethod
    def _uploads_are_the_tenant_s(cls, message: EmailMessage, info: ValidationInfo) -> EmailMessage:
        tenant = f"{info.data.get('tenant_id', '')}/"
        foreign: list[Path] = [
            ("message", "attachments", at, "s3", "key")
            for at, attachment in enumerate(message.attachments)
            if attachment.s3 and not attachment.s3.key.startswith(tenant)
        ]
        if foreign and tenant != "/":
            raise fault("must be the key of an upload of this tenant", *foreign)
        return message

    @property
    def uploads(self) -> Mapping[int, S3Object]:
        """The uploads among the attachments, by their place."""
        return {at: attachment.s3 for at, attachment in enumerate(self.message.attachments) if attachment.s3}

    def pinned(self, versions: Mapping[int, str | None]) -> Self:
        """Return the same request with the uploads at these places pinned to a version."""
        attachments = [
            attachment.model_copy(update={"s3": attachment.s3.pinned(versions[at])}) if attachment.s3 and at in versions else attachment
            for at, attachment in enumerate(self.message.attachments)
        ]
        return self.model_copy(update={"message": self.message.model_copy(update={"attachments": tuple(attachments)})})


def parse_request(body: str | bytes, *, tenant_id: str | None = None, request_id: str | None = None) -> SendRequest:
    """Parse a send request from the queue or the bucket, written by its caller or by `canonical_json`.

    `tenant_id` and `request_id` are those of path and header, if the request came with them.

    Raises:
        RequestError: listing every fault; `tenant_mismatch` where the body names another tenant.
    """
    document, unreadable = load_object(body)
    versions = document.pop(_PINNED, {})
    request = read_request(document, unreadable, tenant_id=tenant_id, request_id=request_id)
    return request.pinned(_versions(versions, request)) if versions else request


_PINNED = "pinnedVersions"
"""The field of the queue's JSON with the versions of pinned uploads, by the attachment's index; callers do not write it."""


def _versions(written: Any, request: SendRequest) -> dict[int, str]:
    places = {str(at): at for at in request.uploads}
    if not isinstance(written, dict) or not all(
        at in places and isinstance(version, str) and re.fullmatch(_VERSION_ID, version) for at, version in written.items()
    ):
        raise RequestError([Problem(_PINNED, "is not a field of a send request")])
    return {places[at]: version for at, version in written.items()}


def read_request(
    document: Mapping[str, object],
    unreadable: Iterable[Problem] = (),
    *,
    tenant_id: str | None = None,
    request_id: str | None = None,
    new_request_id: Callable[[], str] | None = None,
) -> SendRequest:
    """Read a decoded send request, as `parse_request` does; `new_request_id` makes an id if neither header nor body has one.

    Raises:
        RequestError: as `parse_request`.
    """
    document, faulty = dict(document), list(unreadable)
    if tenant_id is not None and document.setdefault("tenantId", tenant_id) != tenant_id:
        raise RequestError([Problem("tenantId", "must be the tenant in the path")], "tenant_mismatch")
    if request_id is not None and document.setdefault("requestId", request_id) != request_id:
        faulty.append(Problem("requestId", "must be that of the Idempotency-Key header"))
    if new_request_id is not None and "requestId" not in document:
        document["requestId"] = new_request_id()
    return parse(SendRequest, document, faulty)


def readable_ids(body: str | bytes) -> tuple[str, str] | None:
    """Return (tenantId, requestId) of a body, which need not be a valid request; None if they are missing or ambiguous."""
    try:
        document, unreadable = load_object(body)
    except RequestError:
        return None
    tenant_id, request_id = document.get("tenantId"), document.get("requestId")
    if any(problem.path == "" for problem in unreadable):  # names given twice, perhaps these
        return None
    if (
        isinstance(tenant_id, str)
        and isinstance(request_id, str)
        and re.fullmatch(TENANT_ID, tenant_id)
        and re.fullmatch(REQUEST_ID, request_id)
    ):
        return tenant_id, request_id
    return None


def utf8_size(text: str) -> int:
    """Return the number of bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def canonical_json(request: SendRequest) -> str:
    """Write the request for the queue: sorted, compact ASCII JSON of the fields that the caller set, and pinned versions."""
    content = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    versions = {str(at): ref.version for at, ref in request.uploads.items() if ref.version and not ref.version_id}
    return _canonical(content | ({_PINNED: versions} if versions else {}))


HASH_SCHEME = "sha256-v2"
"""The format over which `content_hash` is computed; only hashes of one scheme are compared.

Records outlive a release by 35 days: a change of a default, or of what is left out below, needs a new scheme.
"""


def content_hash(request: SendRequest) -> str:
    """Return a hash of the request without its ids: equal for equal content, however it was written.

    Fields with their default are left out, so a field that a later release adds does not change the hash of requests that do not use
    it. A file is represented by its own digest, which avoids copies of it.
    """
    content = request.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"tenant_id", "request_id"})
    message = content["message"]
    for field in _MAILBOXES & message.keys():
        for mailbox in message[field]:
            mailbox["email"] = same_mailbox(ascii_address(mailbox["email"]))
    for attachment in message.get("attachments", ()):
        if attachment.get("disposition") == _default_disposition(attachment.get("contentId")):
            del attachment["disposition"]
        if "content" in attachment:
            attachment["content"] = _digest(attachment["content"])
    return f"{HASH_SCHEME}:{_digest(_canonical(content))}"


_MAILBOXES = frozenset({"to", "cc", "bcc", "replyTo"})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(content: dict[str, object]) -> str:
    return json.dumps(content, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a request may go out and when it ends unsent; both in UTC."""

    send_at: datetime
    expires_at: datetime


def schedule(request: SendRequest, created_at: datetime) -> Schedule:
    """Return when a request may be sent and when it expires, counted from when it was first accepted; an earlier `sendAt` means at once.

    An `expiresAt` that has passed is not an error: a later reading of the request must have the same result as the first one.

    Raises:
        RequestError: the times are further ahead than allowed, or `expiresAt` is not after `sendAt`.
    """
    send_at, expires_at = max(request.send_at or created_at, created_at), request.expires_at
    problems = []  # found by differences: to the last day of the year 9999 no day can be added
    if send_at - created_at > MAX_AHEAD:
        problems.append(Problem("sendAt", f"must be at most {MAX_AHEAD.days} days ahead"))
    if request.send_at and expires_at and expires_at <= request.send_at:
        problems.append(Problem("expiresAt", "must be later than sendAt"))
    if expires_at and expires_at - send_at > MAX_AHEAD:
        problems.append(Problem("expiresAt", f"must be at most {MAX_AHEAD.days} days after sendAt, or after now where that is not given"))
    if problems:
        raise RequestError(problems)
    return Schedule(send_at, expires_at or send_at + DEFAULT_LIFE)


def raw_too_large(size: int) -> Problem:
    """Return the problem of a message whose raw form has at least so many bytes, more than SES takes by any of its operations."""
    return Problem("message", f"would make a raw message of {size} bytes; SES takes {MAX_RAW_BYTES}")


def body_too_large(size: int, at: str) -> RequestError:
    """Return why a request of so many bytes is refused; `at` is the path that the problem names."""
    problem = f"makes a request of {size} bytes; the queue takes {MAX_BODY}: upload large attachments first (POST …/attachments)"
    return RequestError([Problem(at, problem)], "message_too_large")

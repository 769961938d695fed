"""Uploads of attachments: what may be uploaded before the message is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import Field, field_validator

from mailer.domain import file_types
from mailer.domain.header_text import MAX_FILENAME
from mailer.domain.message import HEADER_TEXT, MAX_RAW_BYTES, TAKEN_BY_SES, base64_size
from mailer.domain.wire import WireModel, fault, matching


def largest_file(room: int) -> int:
    """Return the largest file for so many bytes of raw message: base64 makes 76 characters and CRLF of each 57 bytes."""
    return max(room, 0) * 57 // 78


def file_size(octets: int) -> int:
    """Return the bytes of raw message that a file of so many bytes takes."""
    return base64_size(4 * -(-octets // 3))


MAX_UPLOAD = largest_file(MAX_RAW_BYTES)
"""The largest file that fits a message, in bytes."""

_ATOM = r"[A-Za-z0-9!#$&^_.+-]{1,64}"

MediaType = Annotated[str, matching(rf"{_ATOM}/{_ATOM}", "type/subtype, without parameters", longest=129)]


class UploadRequest(WireModel):
    """A caller's description of a file; the upload is bound to this type and size, and to the checksum if it is given."""

    filename: Annotated[str, Field(min_length=1, max_length=MAX_FILENAME), HEADER_TEXT, TAKEN_BY_SES]
    content_type: MediaType | None = None
    size: Annotated[int, Field(strict=True, ge=1)]
    """Bytes."""
    sha256: Annotated[str, matching(r"[0-9a-f]{64}", "64 hexadecimal digits, in lower case", longest=64)] | None = None
    """Of the file; S3 then takes no other bytes, and they are checked again when the mail is composed."""

    @field_validator("size")
    @classmethod
    def _fits_into_a_message(cls, size: int) -> int:
        if size > MAX_UPLOAD:
            problem = f"is {size} bytes; at most {MAX_UPLOAD} fit into the {MAX_RAW_BYTES} bytes of raw message that SES takes"
            raise fault(problem, code="message_too_large")
        return size

    @property
    def media_type(self) -> str:
        """The media type: as given, or by the file name."""
        return self.content_type or file_types.media_type(self.filename)


@dataclass(frozen=True, slots=True)
class Upload:
    """A permission to upload one file: a PUT to `url` with exactly these headers and a body of exactly this length."""

    key: str
    url: str = field(repr=False)
    """Has a signature: anyone who has the URL may upload."""
    headers: Mapping[str, str]
    expires_at: datetime

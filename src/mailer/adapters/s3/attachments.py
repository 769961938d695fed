"""Attachments that callers upload before sending: to the private bucket under `attachments/{tenantId}/`, by a presigned PUT."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from botocore.exceptions import ClientError

from mailer.adapters.aws import dependency_errors, readable
from mailer.domain.errors import Problem, RequestError
from mailer.domain.message import S3Object
from mailer.domain.uploads import MAX_UPLOAD, Upload, UploadRequest
from mailer.ports import LargerFileError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "attachments/"

VALID_FOR = timedelta(minutes=15)
"""How long a presigned upload is valid; it ends earlier with the function's own credentials."""

CHECKSUM_HEADER = "x-amz-checksum-sha256"

_GONE = frozenset({"NoSuchKey", "404"})

# A version that never existed is an invalid argument if S3 does not make such ids; a delete marker cannot be read.
_NO_VERSION = frozenset({"NoSuchVersion", "InvalidArgument", "400", "MethodNotAllowed", "405"})


class S3Attachments:
    """`ports.Attachments` and `ports.Uploads` on S3."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create_upload(self, tenant_id: str, request: UploadRequest) -> Upload:
        """Presign one upload; S3 refuses another type, length, key, or content (if its checksum is given): the signature covers them."""
        key = f"{tenant_id}/{uuid4().hex}"
        checksum = {"ChecksumSHA256": b64encode(bytes.fromhex(request.sha256)).decode("ascii")} if request.sha256 else {}
        url = self._client.generate_presigned_url(
            "put_object",
            Params={
                "Bucket": self._bucket,
                "Key": PREFIX + key,
                "ContentType": request.media_type,
                "ContentLength": request.size,
                **checksum,
            },
            ExpiresIn=int(VALID_FOR.total_seconds()),
        )
        headers = {"Content-Type": request.media_type, "Content-Length": str(request.size)}
        headers |= {CHECKSUM_HEADER: checksum["ChecksumSHA256"]} if checksum else {}
        return Upload(key, url, headers, datetime.now(UTC) + VALID_FOR)

    def version(self, tenant_id: str, ref: S3Object) -> str | None:
        """Return the version that a reference means now; see `ports.Attachments.version`."""
        with dependency_errors("S3", "HeadObject"), readable("S3", "HeadObject"):
            with _found(ref):
                found = self._client.head_object(**self._object(tenant_id, ref))
            _check_size(ref, found["ContentLength"])
            return found.get("VersionId")

    def fetch(self, tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:
        """Return an uploaded object of this tenant; see `ports.Attachments.fetch`."""
        with dependency_errors("S3", "GetObject"), readable("S3", "GetObject"):
            with _found(ref):
                found = self._client.get_object(**self._object(tenant_id, ref), ChecksumMode="ENABLED")
            with closing(found["Body"]) as body:
                _check_size(ref, found["ContentLength"])
                if at_most is not None and found["ContentLength"] > at_most:
                    raise LargerFileError(found["ContentLength"])
                return body.read()  # and botocore compares the checksum

    def _object(self, tenant_id: str, ref: S3Object) -> Any:
        if not ref.key.startswith(f"{tenant_id}/"):
            raise _missing(ref, "is not one of this tenant")
        return {"Bucket": self._bucket, "Key": PREFIX + ref.key} | ({"VersionId": ref.version} if ref.version else {})


@contextmanager
def _found(ref: S3Object) -> Iterator[None]:
    """Raise RequestError if S3 does not have the object, or not in this version."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in (_NO_VERSION | _GONE if ref.version else _GONE):
            raise _missing(ref, "is not there: it was never uploaded, has expired, or has no such version") from None
        raise


def _check_size(ref: S3Object, size: int) -> None:
    if size > MAX_UPLOAD:
        problem = f"attachment {ref.key} has {size} bytes; at most {MAX_UPLOAD} fit into a message"
        raise RequestError([Problem("", problem)], "message_too_large")


def _missing(ref: S3Object, problem: str) -> RequestError:
    return RequestError([Problem("", f"attachment {ref.key} {problem}")], "attachment_missing")

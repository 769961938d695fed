"""Attachments that callers upload ahead: to the private bucket under `attachments/{tenantId}/`, by a presigned PUT."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from botocore.exceptions import ClientError

from mailer.adapters.aws import dependency_errors, readable
from mailer.domain.errors import Problem, RequestError
from mailer.domain.message import S3Object
from mailer.domain.uploads import MAX_UPLOAD, Upload, UploadRequest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

PREFIX = "attachments/"

VALID_FOR = timedelta(minutes=15)
"""How long an upload may be begun; ends earlier with the function's own credentials."""

_GONE = frozenset({"NoSuchKey", "404"})


class S3Attachments:
    """`ports.Attachments` on S3, and the uploads before."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def invite(self, tenant_id: str, request: UploadRequest) -> Upload:
        """Permit one upload; S3 refuses another type, length or key, for the signature covers them."""
        key = f"{tenant_id}/{uuid4().hex}"
        url = self._client.generate_presigned_url(
            "put_object",
            Params={
                "Bucket": self._bucket,
                "Key": PREFIX + key,
                "ContentType": request.media_type,
                "ContentLength": request.size,
            },
            ExpiresIn=int(VALID_FOR.total_seconds()),
        )
        headers = {"Content-Type": request.media_type, "Content-Length": str(request.size)}
        return Upload(key, url, headers, datetime.now(UTC) + VALID_FOR)

    def fetch(self, tenant_id: str, ref: S3Object) -> bytes:
        """Return an uploaded object of this tenant; see `ports.Attachments.fetch`."""
        if not ref.key.startswith(f"{tenant_id}/"):
            raise _missing(ref, "is not one of this tenant")
        with dependency_errors("S3", "GetObject"), readable("S3", "GetObject"), closing((found := self._get(ref))["Body"]) as body:
            if ref.version_id and found["VersionId"] != ref.version_id:
                raise _missing(ref, "was replaced: the bucket holds another version than the one named")
            if found["ContentLength"] > MAX_UPLOAD:
                problem = f"attachment {ref.key} has {found['ContentLength']} bytes; at most {MAX_UPLOAD} fit into a message"
                raise RequestError([Problem("", problem)], "message_too_large")
            return body.read()

    def _get(self, ref: S3Object) -> "GetObjectOutputTypeDef":
        try:
            return self._client.get_object(Bucket=self._bucket, Key=PREFIX + ref.key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _GONE:
                raise _missing(ref, "is not there: it was never uploaded, or has expired") from None
            raise


def _missing(ref: S3Object, problem: str) -> RequestError:
    return RequestError([Problem("", f"attachment {ref.key} {problem}")], "attachment_missing")

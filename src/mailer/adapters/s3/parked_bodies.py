"""Request bodies that wait longer than the queue can delay them, in the private bucket."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mailer.adapters.aws import dependency_errors, readable
from mailer.ports import ParkedBody

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "parked/"


class S3ParkedBodies:
    """`ports.ParkedBodies` and `ports.ParkedList` on S3."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def park(self, tenant_id: str, request_id: str, body: str) -> str:
        """Store a body; the key contains its digest, so that other content with the same id overwrites nothing."""
        key = f"{PREFIX}{tenant_id}/{request_id}/{hashlib.sha256(body.encode()).hexdigest()[:16]}.json"
        with dependency_errors("S3", "PutObject"):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body.encode(), ContentType="application/json")
        return key

    def fetch(self, key: str) -> str:
        """Return a parked body."""
        if not key.startswith(PREFIX):
            raise KeyError("parked")
        try:
            with dependency_errors("S3", "GetObject"), readable("S3", "GetObject"):
                return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read().decode()
        except self._client.exceptions.NoSuchKey:
            raise KeyError("parked") from None

    def discard(self, key: str) -> None:
        """Delete a parked body; the bucket is versioned, and its lifecycle deletes the old version."""
        with dependency_errors("S3", "DeleteObject"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def list_all(self) -> Iterator[ParkedBody]:
        """Yield every parked body, by key."""
        with dependency_errors("S3", "ListObjectsV2"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=PREFIX):
                for entry in page.get("Contents", []):
                    yield ParkedBody(entry["Key"], entry["LastModified"])

"""The onboarding template in the private bucket, served to tenants' CloudFormation consoles by presigned URLs."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from mailer.adapters.aws import dependency_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "onboarding/"

VALID_FOR = timedelta(hours=1)
"""How long a URL serves the template; it ends earlier with the function's own credentials."""


class S3OnboardingTemplates:
    """`ports.TemplateStore` on S3; the client is created on first use, because few calls need it."""

    def __init__(self, client: "Callable[[], S3Client]", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def publish(self, template: str) -> str:
        """Store a template under its digest and return its URL; written each time, because the bucket's lifecycle deletes it."""
        key = f"{PREFIX}{hashlib.sha256(template.encode()).hexdigest()[:16]}.json"
        with dependency_errors("S3", "PutObject"):
            self._client().put_object(Bucket=self._bucket, Key=key, Body=template.encode(), ContentType="application/json")
        return self._client().generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=int(VALID_FOR.total_seconds())
        )

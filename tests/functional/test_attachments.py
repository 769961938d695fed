"""Uploading a large attachment ahead, and fetching it for the message that refers to it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from gateway import Gateway
from mailer import wiring
from mailer.adapters.attachments import PREFIX, VALID_FOR
from mailer.domain.errors import DependencyError, RequestError
from mailer.domain.message import MAX_RAW_BYTES, S3Object
from mailer.domain.uploads import MAX_UPLOAD, UploadRequest
from mailer.handlers import messages

PDF = {"filename": "report.pdf", "size": 1234}


@pytest.fixture
def api(aws: Mapping[str, str]) -> Gateway:  # noqa: ARG001 - it makes what the handler reads
    return Gateway(messages.handler)


def put(key: str, body: bytes = b"%PDF") -> str:
    bucket = wiring.settings().attachments_bucket
    return boto3.client("s3").put_object(Bucket=bucket, Key=PREFIX + key, Body=body)["VersionId"]


def refusal(key: str, version_id: str | None = None, tenant_id: str = "acme") -> RequestError:
    with pytest.raises(RequestError) as refused:
        wiring.attachments().fetch(tenant_id, S3Object(key=key, version_id=version_id))
    return refused.value


# ── upload ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_upload_is_bound_to_tenant_type_and_size(api: Gateway) -> None:
    """The signature covers host, key, Content-Type and Content-Length: S3 takes nothing else under this URL."""
    answer = api.call("POST", "/tenants/acme/attachments", PDF)
    assert answer.status == 201
    upload, key = answer.json["upload"], answer.json["s3"]["key"]
    assert key.startswith("acme/")
    assert (upload["method"], upload["headers"]) == ("PUT", {"Content-Type": "application/pdf", "Content-Length": "1234"})
    url, query = urlsplit(upload["url"]), parse_qs(urlsplit(upload["url"]).query)
    assert url.path == f"/{PREFIX}{key}"
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-SignedHeaders"] == ["content-length;content-type;host"]


def test_an_upload_names_the_region_s_own_host(api: Gateway, aws: Mapping[str, str]) -> None:
    """S3's global host redirects to other regions, which a signed PUT does not survive."""
    url = urlsplit(api.call("POST", "/tenants/acme/attachments", PDF).json["upload"]["url"])
    assert url.hostname == f"{aws['ATTACHMENTS_BUCKET']}.s3.eu-central-1.amazonaws.com"


@pytest.mark.usefixtures("aws")
def test_an_upload_is_signed_anew_style_in_the_oldest_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """In us-east-1 botocore would sign by version 2, which binds no length."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    upload = wiring.attachments().invite("acme", UploadRequest(**PDF))
    assert "X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost" in upload.url


def test_an_upload_ends_soon(api: Gateway) -> None:
    """A quarter of an hour is enough to begin it."""
    upload = api.call("POST", "/tenants/acme/attachments", PDF).json["upload"]
    assert parse_qs(urlsplit(upload["url"]).query)["X-Amz-Expires"] == [str(int(VALID_FOR.total_seconds()))]
    ends_in = datetime.fromisoformat(upload["expiresAt"]) - datetime.now(UTC)
    assert VALID_FOR - timedelta(minutes=1) < ends_in <= VALID_FOR


def test_every_upload_has_a_key_of_its_own(api: Gateway) -> None:
    """Two files of one name do not meet."""
    keys = {api.call("POST", "/tenants/acme/attachments", PDF).json["s3"]["key"] for _ in range(2)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("fields", "status", "code", "path"),
    [
        ({"size": 0}, 400, "invalid_request", "size"),
        ({"size": "1234"}, 400, "invalid_request", "size"),
        ({"size": True}, 400, "invalid_request", "size"),
        ({"size": 10**400}, 413, "message_too_large", "size"),
        ({"size": MAX_UPLOAD + 1}, 413, "message_too_large", "size"),
        ({"filename": ""}, 400, "invalid_request", "filename"),
        ({"filename": "a\n.pdf"}, 400, "invalid_request", "filename"),
        ({"filename": "setup.exe"}, 400, "attachment_type_blocked", "filename"),
        ({"contentType": "text"}, 400, "invalid_request", "contentType"),
        ({"contentType": "text/plain\r\nx: y"}, 400, "invalid_request", "contentType"),
        ({"key": "bravo/1"}, 400, "invalid_request", "key"),
    ],
)
def test_what_could_never_be_attached_is_refused_before_it_is_uploaded(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], status: int, code: str, path: str
) -> None:
    """Each by its path, and without asking S3."""
    monkeypatch.setattr(wiring, "attachments", lambda: pytest.fail("asked S3"))
    answer = Gateway(messages.handler).call("POST", "/tenants/acme/attachments", {**PDF, **fields})
    assert answer.is_problem(status, code)
    assert answer.paths == [path]


def test_the_largest_upload_just_fits() -> None:
    """In base64 with its line ends it stays below SES's limit, and nothing larger does."""
    assert UploadRequest(filename="a.pdf", size=MAX_UPLOAD).size == MAX_UPLOAD
    lines = -(-(MAX_UPLOAD + 57) // 57)
    assert MAX_UPLOAD // 57 * 78 <= MAX_RAW_BYTES < lines * 78


# ── fetch ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("aws")
def test_an_upload_is_fetched_as_it_was_uploaded() -> None:
    """With or without naming its version."""
    body = bytes(range(256)) * 1000
    version = put("acme/1", body)
    for named in (None, version):
        assert wiring.attachments().fetch("acme", S3Object(key="acme/1", version_id=named)) == body


@pytest.mark.usefixtures("aws")
def test_a_missing_upload_is_named() -> None:
    """By its key: never uploaded, or expired meanwhile."""
    error = refusal("acme/1")
    assert error.code == "attachment_missing"
    assert "acme/1" in str(error)


@pytest.mark.usefixtures("aws")
def test_a_deleted_upload_is_missing() -> None:
    """A delete marker is no file, whatever lies behind it."""
    version = put("acme/1")
    boto3.client("s3").delete_object(Bucket=wiring.settings().attachments_bucket, Key=f"{PREFIX}acme/1")
    for named in (None, version):
        assert refusal("acme/1", named).code == "attachment_missing"


@pytest.mark.usefixtures("aws")
def test_a_replaced_upload_is_refused() -> None:
    """What was put under the key later is not what the request meant, and the message is not sent with either."""
    version = put("acme/1", b"first")
    put("acme/1", b"second")
    error = refusal("acme/1", version)
    assert error.code == "attachment_missing"
    assert "replaced" in str(error)


@pytest.mark.usefixtures("aws")
def test_a_version_that_never_was_is_refused() -> None:
    """A made-up version finds nothing."""
    put("acme/1")
    assert refusal("acme/1", "made-up").code == "attachment_missing"


@pytest.mark.usefixtures("aws")
def test_another_tenant_s_upload_is_refused() -> None:
    """Whether it exists or not; a tenant whose name begins alike is another one."""
    put("bravo/1")
    put("acme2/1")
    for key in ("bravo/1", "acme2/1", "bravo/none"):
        error = refusal(key)
        assert error.code == "attachment_missing"
        assert "not one of this tenant" in str(error)


@pytest.mark.usefixtures("aws")
def test_an_oversize_upload_is_not_read() -> None:
    """Its length is known before its first byte; the refusal names both numbers."""
    put("acme/1", bytes(MAX_UPLOAD + 1))
    error = refusal("acme/1")
    assert error.code == "message_too_large"
    assert str(MAX_UPLOAD + 1) in str(error)
    assert str(MAX_UPLOAD) in str(error)
    put("acme/2", bytes(MAX_UPLOAD))
    assert len(wiring.attachments().fetch("acme", S3Object(key="acme/2"))) == MAX_UPLOAD


@pytest.mark.usefixtures("aws")
def test_a_bucket_that_does_not_answer_is_no_missing_upload() -> None:
    """The message waits then; it does not fail."""
    boto3.client("s3").delete_bucket(Bucket=wiring.settings().attachments_bucket)
    with pytest.raises(DependencyError):
        wiring.attachments().fetch("acme", S3Object(key="acme/1"))

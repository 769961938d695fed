"""Uploads of large attachments, and fetching them for the message."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from mailer import wiring
from mailer.adapters.dynamodb.providers_table import to_item
from mailer.adapters.s3.attachments import PREFIX, VALID_FOR, S3Attachments
from mailer.domain.errors import DependencyError, RequestError
from mailer.domain.message import MAX_RAW_BYTES, S3Object, parse_request
from mailer.domain.uploads import MAX_UPLOAD, UploadRequest
from mailer.handlers import messages
from mailer.ports import LargerFileError
from support.aws.canned import answer
from support.fakes.messages import a_body
from support.fakes.ports import a_provider
from support.servers.gateway import Gateway

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
    """The signature covers host, key, Content-Type and Content-Length, so S3 accepts nothing else under this URL."""
    answer = api.call("POST", "/tenants/acme/attachments", PDF)
    assert answer.status == 201
    upload, key = answer.json["upload"], answer.json["s3"]["key"]
    assert key.startswith("acme/")
    assert (upload["method"], upload["headers"]) == ("PUT", {"Content-Type": "application/pdf", "Content-Length": "1234"})
    url, query = urlsplit(upload["url"]), parse_qs(urlsplit(upload["url"]).query)
    assert url.path == f"/{PREFIX}{key}"
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-SignedHeaders"] == ["content-length;content-type;host"]


def test_an_upload_may_be_bound_to_its_checksum(api: Gateway) -> None:
    """S3 then refuses other bytes of the same length: the checksum header is signed and must be sent."""
    digest = hashlib.sha256(b"%PDF")
    upload = api.call("POST", "/tenants/acme/attachments", {**PDF, "size": 4, "sha256": digest.hexdigest()}).json["upload"]
    assert upload["headers"]["x-amz-checksum-sha256"] == b64encode(digest.digest()).decode()
    signed = parse_qs(urlsplit(upload["url"]).query)["X-Amz-SignedHeaders"]
    assert signed == ["content-length;content-type;host;x-amz-checksum-sha256"]


def test_an_upload_url_has_the_regional_host(api: Gateway, aws: Mapping[str, str]) -> None:
    """S3's global host redirects to other regions, which breaks a signed PUT."""
    url = urlsplit(api.call("POST", "/tenants/acme/attachments", PDF).json["upload"]["url"])
    assert url.hostname == f"{aws['ATTACHMENTS_BUCKET']}.s3.eu-central-1.amazonaws.com"


@pytest.mark.usefixtures("aws")
def test_an_upload_is_signed_with_version_4_in_us_east_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """There botocore would use signature version 2, which does not cover the length."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    upload = wiring.attachments().create_upload("acme", UploadRequest(**PDF))
    assert "X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost" in upload.url


def test_an_upload_url_expires_soon(api: Gateway) -> None:
    """After a quarter of an hour, enough to start the upload."""
    upload = api.call("POST", "/tenants/acme/attachments", PDF).json["upload"]
    assert parse_qs(urlsplit(upload["url"]).query)["X-Amz-Expires"] == [str(int(VALID_FOR.total_seconds()))]
    ends_in = datetime.fromisoformat(upload["expiresAt"]) - datetime.now(UTC)
    assert VALID_FOR - timedelta(minutes=1) < ends_in <= VALID_FOR


def test_every_upload_has_its_own_key(api: Gateway) -> None:
    """Two files with the same name do not overwrite each other."""
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
        ({"sha256": "0" * 63}, 400, "invalid_request", "sha256"),
        ({"sha256": "A" * 64}, 400, "invalid_request", "sha256"),
        ({"filename": ""}, 400, "invalid_request", "filename"),
        ({"filename": "a\n.pdf"}, 400, "invalid_request", "filename"),
        ({"filename": "setup.exe"}, 400, "attachment_type_blocked", "filename"),
        ({"contentType": "text"}, 400, "invalid_request", "contentType"),
        ({"contentType": "text/plain\r\nx: y"}, 400, "invalid_request", "contentType"),
        ({"key": "bravo/1"}, 400, "invalid_request", "key"),
    ],
)
def test_an_unsendable_upload_is_refused_before_it_is_uploaded(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], status: int, code: str, path: str
) -> None:
    """By its path, and without a call of S3."""
    monkeypatch.setattr(wiring, "attachments", lambda: pytest.fail("asked S3"))
    answer = Gateway(messages.handler).call("POST", "/tenants/acme/attachments", {**PDF, **fields})
    assert answer.is_problem(status, code)
    assert answer.paths == [path]


def test_the_largest_upload_fits_into_the_largest_message() -> None:
    """In base64 with line ends it is below SES's limit; one byte more is not."""
    assert UploadRequest(filename="a.pdf", size=MAX_UPLOAD).size == MAX_UPLOAD
    lines = -(-(MAX_UPLOAD + 57) // 57)
    assert MAX_UPLOAD // 57 * 78 <= MAX_RAW_BYTES < lines * 78


# ── fetch ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("aws")
def test_an_upload_is_fetched_unchanged() -> None:
    """With and without its version."""
    body = bytes(range(256)) * 1000
    version = put("acme/1", body)
    for named in (None, version):
        assert wiring.attachments().fetch("acme", S3Object(key="acme/1", version_id=named)) == body


def answering(body: bytes, **headers: str) -> S3Attachments:
    """Return attachments on an S3 that responds to each GetObject with these bytes."""
    client = boto3.client("s3")

    def respond(request: Any, **_: Any) -> Any:
        given = answer(request, 200, body)
        given.headers.update({"Content-Length": str(len(body)), **headers})
        given.raw = BytesIO(body)
        return given

    client.meta.events.register_first("before-send.s3.GetObject", respond)
    return S3Attachments(client, "bucket")


@pytest.mark.usefixtures("aws")
def test_damaged_bytes_are_a_failed_dependency() -> None:
    """By S3's checksum: the mail waits instead of carrying them."""
    digest = b64encode(hashlib.sha256(b"%PDF").digest()).decode()
    whole, damaged = (answering(body, **{"x-amz-checksum-sha256": digest}) for body in (b"%PDF", b"%PDA"))
    assert whole.fetch("acme", S3Object(key="acme/1")) == b"%PDF"
    with pytest.raises(DependencyError):
        damaged.fetch("acme", S3Object(key="acme/1"))


@pytest.mark.usefixtures("aws")
def test_the_checksum_is_requested() -> None:
    """S3 returns it only on request."""
    client = boto3.client("s3")
    asked: list[str | None] = []
    client.meta.events.register_first("before-send.s3.GetObject", lambda request, **_: asked.append(request.headers["x-amz-checksum-mode"]))
    put("acme/1")
    S3Attachments(client, wiring.settings().attachments_bucket).fetch("acme", S3Object(key="acme/1"))
    assert asked in ([b"ENABLED"], ["ENABLED"])


@pytest.mark.usefixtures("aws")
def test_an_upload_larger_than_the_room_left_is_not_read() -> None:
    """Its length is known before its first byte."""
    put("acme/1", b"12345")
    attachments = wiring.attachments()
    assert attachments.fetch("acme", S3Object(key="acme/1"), at_most=5) == b"12345"
    with pytest.raises(LargerFileError) as larger:
        attachments.fetch("acme", S3Object(key="acme/1"), at_most=4)
    assert larger.value.size == 5


@pytest.mark.usefixtures("aws")
def test_a_missing_upload_is_named_in_the_error() -> None:
    """By its key, whether it was never uploaded or has expired."""
    error = refusal("acme/1")
    assert error.code == "attachment_missing"
    assert "acme/1" in str(error)


@pytest.mark.usefixtures("aws")
def test_a_deleted_upload_is_missing_unless_its_version_is_named() -> None:
    """A delete marker is not a file; a request pinned to an earlier version is sent with that version."""
    version = put("acme/1", b"first")
    boto3.client("s3").delete_object(Bucket=wiring.settings().attachments_bucket, Key=f"{PREFIX}acme/1")
    assert refusal("acme/1").code == "attachment_missing"
    assert missing("acme/1").code == "attachment_missing"
    assert wiring.attachments().fetch("acme", S3Object(key="acme/1").pinned(version)) == b"first"


@pytest.mark.usefixtures("aws")
def test_the_named_or_pinned_version_is_fetched() -> None:
    """A later upload under the same key does not change the request."""
    version = put("acme/1", b"first")
    second = put("acme/1", b"second")
    for ref in (S3Object(key="acme/1", version_id=version), S3Object(key="acme/1").pinned(version)):
        assert wiring.attachments().fetch("acme", ref) == b"first"
        assert wiring.attachments().version("acme", ref) == version
    assert wiring.attachments().version("acme", S3Object(key="acme/1")) == second


def missing(key: str, version_id: str | None = None, tenant_id: str = "acme") -> RequestError:
    """Return the error of looking up an upload that cannot be sent."""
    with pytest.raises(RequestError) as refused:
        wiring.attachments().version(tenant_id, S3Object(key=key, version_id=version_id))
    return refused.value


@pytest.mark.usefixtures("aws")
def test_look_up_and_fetch_refuse_the_same() -> None:
    """With the same codes, before anything is queued."""
    put("acme/1")
    put("acme/large", bytes(MAX_UPLOAD + 1))
    put("bravo/1")
    for args, code in [
        (("acme/none",), "attachment_missing"),
        (("acme/1", "made-up"), "attachment_missing"),
        (("bravo/1",), "attachment_missing"),
        (("acme/large",), "message_too_large"),
    ]:
        assert missing(*args).code == refusal(*args).code == code


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(("status", "code"), [(400, "InvalidArgument"), (404, "NoSuchVersion"), (405, "MethodNotAllowed")])
def test_a_version_that_s3_does_not_know_is_missing(status: int, code: str) -> None:
    """S3 has three responses for it: an invalid id, a deleted version, a delete marker. HEAD responses have no body."""
    for operation, body in (("GetObject", f"<Error><Code>{code}</Code></Error>".encode()), ("HeadObject", b"")):
        client = boto3.client("s3")
        client.meta.events.register_first(f"before-send.s3.{operation}", lambda request, body=body, **_: answer(request, status, body))
        attachments = S3Attachments(client, "bucket")
        call = attachments.fetch if operation == "GetObject" else attachments.version
        with pytest.raises(RequestError) as refused:
            call("acme", S3Object(key="acme/1", version_id="v9"))
        assert refused.value.code == "attachment_missing"


@pytest.mark.usefixtures("aws")
def test_the_api_refuses_missing_uploads_and_pins_existing_ones(api: Gateway) -> None:
    """A 400 that names the attachment; the queued request has S3's version."""
    boto3.client("dynamodb").put_item(TableName=wiring.settings().providers_table, Item=to_item(a_provider()))
    body = a_body("r1", message={"attachments": [{"filename": "a.pdf", "s3": {"key": "acme/1"}}]})
    refused = api.call("POST", "/tenants/acme/messages", body)
    assert refused.is_problem(400, "attachment_missing")
    assert refused.paths == ["message.attachments[0].s3"]
    version = put("acme/1")
    assert api.call("POST", "/tenants/acme/messages", body).status == 202
    [sqs_message] = boto3.client("sqs").receive_message(QueueUrl=wiring.settings().send_queue_url)["Messages"]
    [upload] = parse_request(sqs_message["Body"]).uploads.values()
    assert (upload.version_id, upload.version) == (None, version)


@pytest.mark.usefixtures("aws")
def test_an_unknown_version_is_refused() -> None:
    """It finds nothing."""
    put("acme/1")
    assert refusal("acme/1", "made-up").code == "attachment_missing"


@pytest.mark.usefixtures("aws")
def test_another_tenant_s_upload_is_refused() -> None:
    """Whether it exists or not; also that of a tenant whose name has the same prefix."""
    put("bravo/1")
    put("acme2/1")
    for key in ("bravo/1", "acme2/1", "bravo/none"):
        error = refusal(key)
        assert error.code == "attachment_missing"
        assert "not one of this tenant" in str(error)


@pytest.mark.usefixtures("aws")
def test_an_oversize_upload_is_not_read() -> None:
    """Its length is known before its first byte; the error has both numbers."""
    put("acme/1", bytes(MAX_UPLOAD + 1))
    error = refusal("acme/1")
    assert error.code == "message_too_large"
    assert str(MAX_UPLOAD + 1) in str(error)
    assert str(MAX_UPLOAD) in str(error)
    put("acme/2", bytes(MAX_UPLOAD))
    assert len(wiring.attachments().fetch("acme", S3Object(key="acme/2"))) == MAX_UPLOAD


@pytest.mark.usefixtures("aws")
def test_an_unavailable_bucket_is_a_failed_dependency() -> None:
    """The message waits instead of failing."""
    boto3.client("s3").delete_bucket(Bucket=wiring.settings().attachments_bucket)
    for call in (wiring.attachments().fetch, wiring.attachments().version):
        with pytest.raises(DependencyError):
            call("acme", S3Object(key="acme/1"))

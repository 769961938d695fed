"""The clients of our own account: their connection pools and their trust store."""

import pytest
from botocore import UNSIGNED
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth, S3SigV4QueryAuth, SigV4QueryAuth
from botocore.exceptions import ClientError, ParamValidationError

from mailer import wiring
from mailer.adapters.botocore_patches.connections import trust_store
from mailer.adapters.botocore_patches.signing import QuickSigV4
from mailer.adapters.providers.acting import TenantClients
from mailer.domain.errors import DependencyError
from mailer.settings import settings
from support.servers.ses_server import Answer, SesServer
from support.wire_rules import Breach

SERVICES = ["dynamodb", "events", "kms", "s3", "sqs", "sts"]

pytestmark = pytest.mark.usefixtures("aws")


def pool_options(client: object) -> dict[str, object]:
    options: dict[str, object] = client._endpoint.http_session._manager.connection_pool_kw  # type: ignore[attr-defined]  # botocore's
    return options


@pytest.mark.parametrize("service", SERVICES)
def test_every_client_shares_the_tenants_tls_context(service: str) -> None:
    """A process parses one trust store for all clients; botocore's sessions would parse it for each connection."""
    tenants = TenantClients(width=1, ca_bundle=settings().ca_bundle).ses("eu-west-1")
    ours = pool_options(wiring._client(service))["ssl_context"]
    assert ours is pool_options(tenants)["ssl_context"] is trust_store(settings().ca_bundle, amazon=True)


@pytest.mark.parametrize("service", SERVICES)
def test_every_pool_is_as_wide_as_the_threads(service: str) -> None:
    """A smaller pool would close connections after each call, and need new TLS handshakes."""
    session = wiring._client(service)._endpoint.http_session
    assert session._max_pool_connections == settings().send_threads


def test_calls_skip_botocore_s_generic_work(breaches: list[Breach]) -> None:
    """A user agent of 30 parts and a second validation of requests from compiled tables cost a fifth of a message's time."""
    assert wiring.dynamodb().meta.config.user_agent.split()[0] == "tenantmail"
    with pytest.raises(ClientError):
        wiring.dynamodb().get_item(TableName="", Key={})
    assert breaches
    breaches.clear()


@pytest.mark.parametrize("service", SERVICES)
def test_every_client_signs_with_the_fast_signer(service: str) -> None:
    """Signature Version 4 of the headers; S3 and presigned URLs have their own signers."""
    assert signer(service, "v4") == (QuickSigV4 if service != "s3" else S3SigV4Auth)
    assert signer(service, "v4", signing_type="presign-url") in (SigV4QueryAuth, S3SigV4QueryAuth)


def test_calls_with_other_signatures_are_unchanged() -> None:
    """Without a signature, or without the body, as botocore's model of the call says."""
    assert signer("sts", "none") == UNSIGNED
    context: dict[str, object] = {"unsigned_payload": True}
    assert (signer("sts", "v4", context), context["payload_signing_enabled"]) == (QuickSigV4, False)


def signer(service: str, auth_type: str, context: dict[str, object] | None = None, *, signing_type: str = "standard") -> object:
    """Return the signer of a call whose botocore model says `auth_type`."""
    context = {} if context is None else context
    context["auth_type"] = auth_type
    chosen = wiring._client(service)._request_signer._choose_signer("AnyCall", signing_type, context)
    return AUTH_TYPE_MAPS.get(chosen, chosen)


def test_calls_of_kms_are_validated_before() -> None:
    """Their input is from a ciphertext that may be damaged."""
    with pytest.raises(ParamValidationError):
        wiring.kms().decrypt(CiphertextBlob=7)  # type: ignore[arg-type]  # what botocore refuses


def test_a_truncated_response_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose response was truncated would pass for one that does not exist, and a tenant for one without a provider."""
    record = '{"Item": {"tenantId": {"S": "acme"}'
    with SesServer(lambda _: Answer(record, length=len(record) + 100, close=True)) as dynamodb:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url)
        with pytest.raises(DependencyError):
            wiring.messages_table().get("acme", "r-1")
        assert len(dynamodb.requests) == 3  # one directly, two by botocore

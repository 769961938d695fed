"""A success response without the content that AWS documents is a failure of that service, not an absence or a tenant's fault."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import boto3
import pytest

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import TENANT_SHARDS, record_key
from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.credentials import AssumedRoles, RoleAssumption, RoleCredentials
from mailer.adapters.providers.encryption import KmsConfigCipher
from mailer.domain import changes
from mailer.domain.delivery import MaybeSent, NotSent
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.events import Event
from mailer.domain.message import S3Object
from mailer.ports import AccountFacts, QueueMessage
from mailer.services.pacing.pacing import Pacing
from support import tenants
from support.fakes.ports import NOON, FakeClock, a_provider
from support.servers.ses_server import Answer, SesServer
from support.transitions import REQUEST

NO_OBJECTS = ["", "null", "[]", '"text"', "<html>Welcome to our guest network</html>", "\x00\x7f"]
"""Bodies that are no response of a JSON service."""

SERVICES = ("DYNAMODB", "SQS", "S3", "KMS", "STS", "EVENTBRIDGE", "SES", "SESV2")

Says = Callable[..., None]


class Unframed(Answer):
    """A response that ends with its connection."""

    def encoded(self) -> bytes:
        return b"HTTP/1.1 200 X\r\nVersion-Id: 1\r\n\r\n" + self.body.encode()


@pytest.fixture(scope="module")
def sealed(shared_aws: Mapping[str, str]) -> bytes:
    """A config that KMS encrypted before the faults."""
    return KmsConfigCipher(shared_aws["PROVIDER_KEY_ARN"], boto3.client("kms")).encrypt("acme", "ses", 1, b"{}")


@pytest.fixture(scope="module")
def server(shared_aws: Mapping[str, str], sealed: bytes) -> Iterator[SesServer]:
    """One server for every service."""
    assert shared_aws
    assert sealed
    with SesServer() as server, pytest.MonkeyPatch.context() as patch:
        for service in SERVICES:
            patch.setenv(f"AWS_ENDPOINT_URL_{service}", server.url)
        yield server


@pytest.fixture
def says(server: SesServer) -> Says:
    """Let every service answer 200 with these bodies in turn, the last one repeatedly."""

    def say(*bodies: str | Answer) -> None:
        left = [Answer(body) if isinstance(body, str) else body for body in bodies]
        server.react = lambda _: left.pop(0) if len(left) > 1 else left[0]

    return say


def session() -> TenantClients:
    return TenantClients(width=1, connect_timeout=2.0, read_timeout=2.0)


# -- DynamoDB ------------------------------------------------------------------------------------------------------------

READS: dict[str, Callable[[], Any]] = {
    "a record": lambda: wiring.messages_table().get("acme", "r1"),
    "a list": lambda: wiring.messages_table().list("acme", status=None, limit=5, cursor=None),
    "what is due": lambda: wiring.messages_table().due(0, NOON, 5),
    "what waits for a provider": lambda: list(wiring.messages_table().waiting_for_provider("acme")),
    "a provider": lambda: wiring.providers_table().get("acme"),
    "providers": lambda: wiring.providers_table().get_many(["acme"]),
    "tenants to release": lambda: wiring.providers_table().releasing(),
    "a line": lambda: wiring.pacing_table().get("acme"),
}
WRITES: dict[str, Callable[[], Any]] = {
    "a change": lambda: wiring.messages_table().apply(changes.queue(REQUEST, NOON)),
    "a row": lambda: wiring.providers_table().replace(a_provider()),
    "a fault": lambda: wiring.providers_table().clear_faults("acme", 1),
    "a booking": lambda: Pacing(wiring.pacing_table(), functions=1).throttled("acme", NOON),
}


@pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
@pytest.mark.parametrize("body", NO_OBJECTS)
def test_a_response_that_is_no_json_object_is_a_failure_of_dynamodb(says: Says, call: Callable[[], Any], body: str) -> None:
    """Botocore parses it as an empty one: a request that does not exist, a tenant without a provider."""
    says(body)
    with pytest.raises(DependencyError, match="DynamoDB"):
        call()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        *[(name, "{}") for name in READS if name not in ("a record", "a provider", "a line")],
        *[(name, '{"Items": [{}]}') for name in ("a list", "what is due", "what waits for a provider", "tenants to release")],
        *[(name, '{"Item": {"tenantId": {"S": "acme"}, "rate": {"N": "1"}}}') for name in ("a record", "a provider", "a line")],
        ("a list", '{"Items": [], "LastEvaluatedKey": {"tenantId": {"S": "acme"}}}'),
    ],
)
def test_a_response_without_required_members_is_a_failure(says: Says, name: str, body: str) -> None:
    """Or without an attribute that every item has."""
    says(body)
    with pytest.raises(DependencyError, match=r"DynamoDB|cannot be read"):
        READS[name]()


def test_a_row_without_required_attributes_is_unreadable(says: Says) -> None:
    """Of several rows read together only its own tenant is affected."""
    says('{"Responses": {"ProvidersTable": [{"tenantId": {"S": "acme"}}]}}')
    assert isinstance(wiring.providers_table().get_many(["acme"])["acme"], UnreadableError)


def test_a_missing_item_is_none(says: Says) -> None:
    """DynamoDB responds with an empty object."""
    says("{}")
    assert (wiring.messages_table().get("acme", "r1"), wiring.providers_table().get("acme")) == (None, None)


def test_keys_that_stay_unprocessed_are_a_failure(says: Says) -> None:
    """The table is throttled; immediate retries would only use up the function's time."""
    keys: Any = {"MessagesTable": {"Keys": [record_key("acme", "r1")], "ConsistentRead": True}}
    item = json.dumps({"Items": [{**record_key("acme", "r1"), "createdKey": {"S": "2026-11-24T12:00:00.000+00:00#r1"}}]})
    says(*['{"Items": []}'] * (TENANT_SHARDS - 1), item, json.dumps({"Responses": {}, "UnprocessedKeys": keys}))
    with pytest.raises(DependencyError, match="throttled"):
        wiring.messages_table().list("acme", status=None, limit=5, cursor=None)


# -- the queues, the bus, the bucket -------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [*NO_OBJECTS, "{}", '{"Successful": [{}]}', '{"Successful": [{"Id": "x"}]}', '{"Successful": ["0"]}'])
def test_unconfirmed_messages_are_sent_again(says: Says, body: str) -> None:
    """A second message does no harm, a lost one does."""
    says(body)
    queue_message = QueueMessage(body="{}", tenant_id="acme", created_at=NOON)
    assert wiring.send_queue().send([(queue_message, timedelta())]) == [queue_message]


@pytest.mark.parametrize("body", [*NO_OBJECTS, "{}", '{"Entries": []}', '{"Entries": [{}]}', '{"Entries": [null]}'])
def test_unconfirmed_events_are_published_again(says: Says, body: str) -> None:
    """Consumers deduplicate by their id."""
    says(body)
    event = Event(id="e", detail_type="Request Ended", at=NOON, detail={})
    assert wiring.event_bus().put([event]) == [event]


@pytest.mark.parametrize("answer", [Unframed("%PDF", close=True), Answer("%PDF")], ids=["no length", "no version"])
def test_an_upload_response_without_length_or_version_is_a_failure(says: Says, answer: Answer) -> None:
    """It proves neither that the upload was replaced nor that it fits."""
    says(answer)
    with pytest.raises(DependencyError, match="S3"):
        wiring.attachments().fetch("acme", S3Object.model_validate({"key": "acme/1", "versionId": "1"}))


def test_a_parked_body_that_is_no_text_is_a_failure(says: Says) -> None:
    """The request waits for an operator."""

    class Binary(Answer):
        def encoded(self) -> bytes:
            return b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n\xff\xfe"

    says(Binary(""))
    with pytest.raises(DependencyError, match="S3"):
        wiring.parked_bodies().fetch("parked/acme/r1/1.json")


# -- KMS and STS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [*NO_OBJECTS, "{}", '{"Plaintext": ""}', '{"KeyId": "k"}', '{"Plaintext": "eA=="}'])
def test_an_invalid_response_of_kms_is_not_the_tenant_s_fault(says: Says, sealed: bytes, body: str) -> None:
    """`config_unreadable` would suspend the tenant."""
    says(body)
    with pytest.raises(DependencyError, match="KMS"):
        wiring.config_cipher().decrypt("acme", "ses", 1, sealed)
    with pytest.raises(DependencyError, match="KMS"):
        wiring.config_cipher().encrypt("acme", "ses", 1, b"{}")


SESSION = "<AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
STS_ANSWERS = {
    "nothing": "",
    "no XML": "welcome",
    "another document": "<html><body>welcome</body></html>",
    "no credentials": "<AssumeRoleResponse><AssumeRoleResult></AssumeRoleResult></AssumeRoleResponse>",
    "no secret": "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>A</AccessKeyId></Credentials></AssumeRoleResult>"
    "</AssumeRoleResponse>",
    "no end": f"<AssumeRoleResponse><AssumeRoleResult><Credentials>{SESSION}</Credentials></AssumeRoleResult></AssumeRoleResponse>",
}


@pytest.mark.parametrize("body", STS_ANSWERS.values(), ids=STS_ANSWERS)
def test_an_invalid_response_of_sts_is_a_failure_before_ses_is_called(says: Says, body: str) -> None:
    """So the mail is proven not sent, whatever STS responds."""
    says(body)
    roles = AssumedRoles(wiring.sts, own_account="111111111111", platform="L", clock=FakeClock())
    provider = tenants.ses(session(), RoleCredentials(roles, RoleAssumption("acme", 1, tenants.ROLE_ARN, "x")))
    outcome = provider.send(tenants.mail(), tags={})
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == "dependency_unavailable"
    with pytest.raises(DependencyError, match="STS"):
        roles.refuses_foreign_external_id(tenants.role())


# -- SES -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", ["", "<MessageId></MessageId>", "<MessageId/>", "<Other>1</Other>"])
def test_a_response_of_ses_without_message_id_is_unknown(says: Says, result: str) -> None:
    """It does not prove that the mail was accepted."""
    says(f"<SendRawEmailResponse><SendRawEmailResult>{result}</SendRawEmailResult></SendRawEmailResponse>")
    assert isinstance(tenants.ses(session()).send(tenants.mail(), tags={}), MaybeSent)


ACCOUNTS = [
    "{}",
    '{"SendQuota": null}',
    '{"SendQuota": {"MaxSendRate": Infinity, "Max24HourSend": NaN}}',
    '{"SendQuota": {"MaxSendRate": "fast", "Max24HourSend": 1e300}}',
    "<GetSendQuotaResponse><GetSendQuotaResult><MaxSendRate>inf</MaxSendRate></GetSendQuotaResult></GetSendQuotaResponse>",
    "<GetSendQuotaResponse><GetSendQuotaResult><MaxSendRate>many</MaxSendRate></GetSendQuotaResult></GetSendQuotaResponse>",
]


@pytest.mark.parametrize("body", ACCOUNTS)
def test_an_invalid_account_response_gives_no_facts(says: Says, body: str) -> None:
    """No number that DynamoDB cannot store, and no exception."""
    says(body)
    facts = tenants.ses(session()).account_facts()
    assert (facts.max_send_rate, facts.quota_24h) == (None, None)
    assert isinstance(facts, AccountFacts)

"""UpdateItem as JSON: what DynamoDB gets and what we read are what botocore would have made of it."""

import json
from base64 import b64encode
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from mailer.adapters.botocore_patches.raw_update import pass_updates

octets = st.binary(max_size=10)
leaves = st.one_of(
    st.builds(lambda text: {"S": text}, st.text(max_size=10)),
    st.builds(lambda number: {"N": str(number)}, st.integers()),
    st.builds(lambda data: {"B": data}, octets),
    st.builds(lambda flag: {"BOOL": flag}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda texts: {"SS": texts}, st.lists(st.text(max_size=5), min_size=1, max_size=3)),
    st.builds(lambda data: {"BS": data}, st.lists(octets, min_size=1, max_size=3)),
)
# The names of types among them: an attribute may be called so.
names = st.sampled_from(["B", "BS", "S", "M", "tenantId", "é"]) | st.text(min_size=1, max_size=5)
values = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda found: {"L": found}, st.lists(inner, max_size=3))
        | st.builds(lambda found: {"M": found}, st.dictionaries(names, inner, max_size=3))
    ),
    max_leaves=8,
)
items = st.dictionaries(names, values, min_size=1, max_size=5)


class Wire:
    """A client whose requests end here; `answer` is what comes back."""

    def __init__(self, *, raw: bool) -> None:
        self.client = boto3.client("dynamodb", region_name="eu-west-1", aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret")
        send: Any = self._send
        self.client.meta.events.register("before-send.dynamodb", send)
        if raw:
            pass_updates(self.client)
            pass_updates(self.client)  # as often as the client is asked for
        self.status, self.answer = 200, b"{}"
        self.asked: Any = None

    def _send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        self.asked = request.body
        return AWSResponse(request.url, self.status, HTTPHeaders(), _Body(self.answer))

    def update(self, **request: Any) -> Any:
        return self.client.update_item(TableName="messages", Key={"id": {"S": "1"}}, **request)


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Any:
        yield self._content


@pytest.fixture(scope="module")
def raw() -> Wire:
    return Wire(raw=True)


@pytest.fixture(scope="module")
def plain() -> Wire:
    return Wire(raw=False)


def on_the_wire(value: Any) -> bytes:
    return json.dumps(value, default=lambda data: b64encode(data).decode()).encode()


@given(operands=items, attributes=items)
@pytest.mark.unwatched
def test_both_ways_say_the_same(raw: Wire, plain: Wire, operands: dict[str, Any], attributes: dict[str, Any]) -> None:
    """Bytes, maps in maps, and attributes that are called like a type."""
    raw.status = plain.status = 200
    raw.answer = plain.answer = on_the_wire({"Attributes": attributes, "ConsumedCapacity": {"CapacityUnits": 1.5}})
    request = {"ExpressionAttributeValues": operands, "UpdateExpression": "SET #a = :a", "ReturnValues": "ALL_NEW"}
    answers = [wire.update(**request) for wire in (raw, plain)]
    assert answers[0] == answers[1]
    assert answers[0]["Attributes"] == attributes
    assert json.loads(raw.asked) == json.loads(plain.asked)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"__type": "x#ConditionalCheckFailedException", "message": "no", "Item": {"a": {"B": "AAA="}}}),
        (400, {"__type": "x#ProvisionedThroughputExceededException", "message": "slow down"}),
        (400, {}),
    ],
)
def test_refusals_are_read_as_ever(raw: Wire, plain: Wire, status: int, answer: dict[str, Any]) -> None:
    """With the record that stood in the way, of which the adapters make their own."""
    errors = []
    for wire in (raw, plain):
        wire.status, wire.answer = status, on_the_wire(answer)
        with pytest.raises(ClientError) as caught:
            wire.update(UpdateExpression="SET a = :a", ExpressionAttributeValues={":a": {"S": "x"}})
        errors.append((type(caught.value).__name__, caught.value.response))
    assert errors[0] == errors[1]


def test_what_is_no_json_is_left_to_botocore(raw: Wire, plain: Wire) -> None:
    """Whatever it makes of it."""
    for wire in (raw, plain):
        wire.status, wire.answer = 200, b'{"Attributes": {"a'
    assert raw.update() == plain.update()

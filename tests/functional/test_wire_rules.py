"""The check of our calls against AWS's rules sees every kind of call, and detects a violation of each rule."""

import json
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
import pytest
from botocore.endpoint import Endpoint
from botocore.exceptions import ClientError
from botocore.model import ServiceModel

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import record_key
from support.wire_rules import Breach, breaches_of, metrics, model

REGION = "eu-central-1"
KEY = {"tenantId": {"S": "acme"}, "requestId": {"S": "r1"}}
UPDATE = {"TableName": "t", "Key": KEY}
MESSAGE = {"QueueUrl": "q", "MessageBody": "{}"}
EVENT = {"Source": "tenantmail", "DetailType": "Request Ended", "Detail": "{}", "EventBusName": "bus"}
ROLE = {"RoleArn": "arn:aws:iam::222222222222:role/mail", "RoleSessionName": "platform-acme-v1"}
RAW = {"Data": b64encode(b"Subject: hi\r\n\r\n").decode()}
LARGE_MAIL = {"FromEmailAddress": "a@b.example", "Content": {"Raw": {"Data": b"x"}}, "Destination": {"ToAddresses": ["c@d.example"]}}

GOOD: list[tuple[str, str, Mapping[str, Any]]] = [
    ("dynamodb", "GetItem", UPDATE),
    ("dynamodb", "PutItem", {"TableName": "t", "Item": {**KEY, "n": {"N": "-1.5E-3"}, "set": {"SS": ["a", "b"]}}}),
    (
        "dynamodb",
        "UpdateItem",
        {
            **UPDATE,
            "UpdateExpression": "SET #status = :status, attempt = if_not_exists(attempt, :zero) + :one REMOVE dueAt ADD revision :one",
            "ConditionExpression": "attribute_not_exists(tenantId) OR (#status IN (:status) AND active.version = :one)",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {":status": {"S": "sent"}, ":zero": {"N": "0"}, ":one": {"N": "1"}},
        },
    ),
    ("dynamodb", "BatchGetItem", {"RequestItems": {"t": {"Keys": [KEY]}}}),
    ("dynamodb", "TransactWriteItems", {"TransactItems": [{"Put": {"TableName": "t", "Item": KEY}}]}),
    (
        "sqs",
        "SendMessage",
        {**MESSAGE, "MessageGroupId": "acme", "MessageAttributes": {"attempt": {"DataType": "String", "StringValue": "1"}}},
    ),
    (
        "sqs",
        "SendMessageBatch",
        {"QueueUrl": "q", "Entries": [{"Id": str(n), "MessageBody": "{}", "DelaySeconds": 900} for n in range(10)]},
    ),
    ("sqs", "ReceiveMessage", {"QueueUrl": "q", "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20}),
    ("s3", "PutObject", {"Bucket": "b", "Key": "k" * 1024, "Body": b"", "Metadata": {"a": "b"}, "ContentType": "text/plain"}),
    ("events", "PutEvents", {"Entries": [EVENT] * 10}),
    ("ses", "SendRawEmail", {"RawMessage": RAW, "Source": "a@b.example", "Destinations": ["c@d.example"] * 50}),
    ("sesv2", "SendEmail", {**LARGE_MAIL, "Destination": {"ToAddresses": ["c@d.example"] * 50}}),
    ("kms", "GenerateDataKey", {"KeyId": "k", "KeySpec": "AES_256", "EncryptionContext": {"tenant_id": "acme"}}),
    ("sts", "AssumeRole", {**ROLE, "ExternalId": "x-1", "DurationSeconds": 3600, "Policy": '{"Version":"2012-10-17"}'}),
]

BAD: dict[str, tuple[str, str, Mapping[str, Any], str]] = {
    # what botocore's models say
    "a required member is missing": ("dynamodb", "GetItem", {"TableName": "t"}, "Missing required parameter"),
    "a member that does not exist": ("dynamodb", "GetItem", {**UPDATE, "Consistent": True}, "Unknown parameter"),
    "another type": ("dynamodb", "GetItem", {**UPDATE, "ConsistentRead": "yes"}, "Invalid type"),
    "an enumeration": ("dynamodb", "GetItem", {**UPDATE, "ReturnConsumedCapacity": "ALL"}, "not an allowed value"),
    "a list that is too long": ("events", "PutEvents", {"Entries": [EVENT] * 11}, "11 is more than 10"),
    "a text that is too long": ("sts", "AssumeRole", {**ROLE, "ExternalId": "x" * 1225}, "ExternalId: 1225 is more than 1224"),
    "a pattern": ("sts", "AssumeRole", {**ROLE, "RoleSessionName": "acme mail"}, "RoleSessionName: does not match"),
    "a number that is too large": ("sts", "AssumeRole", {**ROLE, "DurationSeconds": 43_201}, "43201 is more than 43200"),
    "a number that is too small": ("dynamodb", "Query", {"TableName": "t", "Limit": 0}, "valid min value: 1"),
    "a blob that is too long": ("kms", "Decrypt", {"CiphertextBlob": b"x" * 6145}, "6145 is more than 6144"),
}

VALUES: dict[str, tuple[Mapping[str, Any], str]] = {
    "infinity": ({"N": "inf"}, "not a finite number"),
    "not a number": ({"N": "NaN"}, "not a finite number"),
    "a number with space around it": ({"N": " 1"}, "not a finite number"),
    "39 digits": ({"N": "1" * 39}, "significant digits"),
    "a number beyond the largest": ({"N": "1E126"}, "too large or too small"),
    "a number below the smallest": ({"N": "-1E-131"}, "too large or too small"),
    "an empty set": ({"SS": []}, "empty set"),
    "a set of the same": ({"NS": ["1", "1"]}, "a duplicate"),
    "a set with infinity": ({"NS": ["1", "Infinity"]}, "not a finite number"),
    "no type": ({}, "0 types"),
    "two types": ({"S": "1", "N": "1"}, "2 types"),
    "a number in a map in a list": ({"L": [{"M": {"a": {"N": "-inf"}}}]}, "not a finite number"),
}


def nested(levels: int) -> Mapping[str, Any]:
    value: Mapping[str, Any] = {"S": "deep"}
    for _ in range(levels):
        value = {"L": [value]}
    return value


def put(**attributes: Any) -> tuple[str, str, Mapping[str, Any]]:
    return "dynamodb", "PutItem", {"TableName": "t", "Item": {**KEY, **attributes}}


def update(
    expression: str, condition: str = "", names: Mapping[str, str] | None = None, **values: Any
) -> tuple[str, str, Mapping[str, Any]]:
    given: dict[str, Any] = {**UPDATE, "UpdateExpression": expression}
    given |= {"ConditionExpression": condition} if condition else {}
    given |= {} if names is None else {"ExpressionAttributeNames": names}
    given |= {"ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}} if values else {}
    return "dynamodb", "UpdateItem", given


def attribute(name: str = "a", **value: Any) -> tuple[str, str, Mapping[str, Any]]:
    return "sqs", "SendMessage", {**MESSAGE, "MessageAttributes": {name: {"DataType": "String", "StringValue": "1", **value}}}


def batch(*entries: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    return (
        "sqs",
        "SendMessageBatch",
        {"QueueUrl": "q", "Entries": [{"Id": str(n), "MessageBody": "{}", **e} for n, e in enumerate(entries)]},
    )


def event(**changes: Any) -> tuple[str, str, Mapping[str, Any]]:
    return "events", "PutEvents", {"Entries": [{**EVENT, **changes}]}


def large_mail(**changes: Any) -> tuple[str, str, Mapping[str, Any]]:
    return "sesv2", "SendEmail", {**LARGE_MAIL, **changes}


def mail(**changes: Any) -> tuple[str, str, Mapping[str, Any]]:
    return "ses", "SendRawEmail", {"RawMessage": RAW, **changes}


ONE, SENT = {"N": "1"}, {"S": "sent"}
HALF = {"Keys": [{"k": {"S": str(n)}} for n in range(51)]}
BAD |= {f"a value: {name}": (*put(a=value), rule) for name, (value, rule) in VALUES.items()}
BAD |= {
    # DynamoDB
    "an operand that is no number": (*update("SET a = :a", a={"N": "inf"}), "not a finite number"),
    "nesting": (*put(a=nested(32)), "nested more than 32"),
    "an empty key": ("dynamodb", "GetItem", {"TableName": "t", "Key": {**KEY, "requestId": {"S": ""}}}, "requestId: is empty"),
    "a long key": ("dynamodb", "GetItem", {"TableName": "t", "Key": {**KEY, "requestId": {"S": "é" * 513}}}, "more than 1024 bytes"),
    "a long partition key": ("dynamodb", "GetItem", {"TableName": "t", "Key": {"account": {"S": "a" * 2049}}}, "more than 2048 bytes"),
    "a key of another type": ("dynamodb", "GetItem", {"TableName": "t", "Key": {**KEY, "requestId": {"BOOL": True}}}, "neither string"),
    "an empty key of an index": (*put(statusShard={"S": ""}), "statusShard: is empty"),
    "an index's key that is set empty": (*update("SET statusShard = :a", a={"S": ""}), "statusShard: is empty"),
    "a page that begins nowhere": ("dynamodb", "Query", {"TableName": "t", "ExclusiveStartKey": {"requestId": {"S": ""}}}, "is empty"),
    "a large item": (*put(a={"S": "x" * 400 * 1024}), "the item takes"),
    "large values": (*update("SET a = :a", a={"B": b64encode(b"x" * 410_000).decode()}), "the values take"),
    "a long expression": (*update(f"SET {'a' * 4096} = :a", a=ONE), "more than 4096 bytes"),
    "many operators": (*update("SET a = :a", " OR ".join(["b = :a"] * 152), a=ONE), "304 operators"),
    "many operands": (*update("SET a = :a", f"b IN ({', '.join([':a'] * 101)})", a=ONE), "operands of IN"),
    "an unused value": (*update("SET a = :a", a=ONE, b=ONE), ":b unused"),
    "an undefined value": (*update("SET a = :a, b = :b", a=ONE), ":b undefined"),
    "an undefined name": (*update("SET #a = :a", a=ONE), "#a undefined"),
    "an unused name": (*update("REMOVE a", names={"#b": "b"}), "#b unused"),
    "no names": (*update("REMOVE a", names={}), "is empty"),
    "a reserved word": (*update("SET status = :a", a=SENT), "status is a reserved word"),
    "a reserved word in a condition": (*update("SET a = :a", "attribute_exists(owner) AND b > :a", a=ONE), "is a reserved word"),
    "an attribute that is changed twice": (*update("SET a = :a REMOVE a", a=ONE), "a is changed 2 times"),
    "102 keys": ("dynamodb", "BatchGetItem", {"RequestItems": {"t": HALF, "u": HALF}}, "102 keys"),
    "a key twice": ("dynamodb", "BatchGetItem", {"RequestItems": {"t": {"Keys": [KEY, KEY]}}}, "requested twice"),
    "an empty key of many": ("dynamodb", "BatchGetItem", {"RequestItems": {"t": {"Keys": [{"tenantId": {"S": ""}}]}}}, "is empty"),
    "101 actions": ("dynamodb", "TransactWriteItems", {"TransactItems": [{"Delete": UPDATE}] * 101}, "101"),
    "a value in a transaction": ("dynamodb", "TransactWriteItems", {"TransactItems": [{"Put": put(a={"N": "inf"})[2]}]}, "not a finite"),
    # SQS
    "an empty body": ("sqs", "SendMessage", {**MESSAGE, "MessageBody": ""}, "body is empty"),
    "a control character": ("sqs", "SendMessage", {**MESSAGE, "MessageBody": "\x0b"}, "a character that SQS rejects"),
    "a noncharacter": ("sqs", "SendMessage", {**MESSAGE, "MessageBody": "\uffff"}, "a character that SQS rejects"),
    "a surrogate": ("sqs", "SendMessage", {**MESSAGE, "MessageBody": "\ud800"}, "a character that SQS rejects"),
    "a large message": (*attribute(StringValue="x" * 1024 * 1024), "the message takes"),
    "a long delay": ("sqs", "SendMessage", {**MESSAGE, "DelaySeconds": 901}, "DelaySeconds: 901"),
    "a group with a space": ("sqs", "SendMessage", {**MESSAGE, "MessageGroupId": "acme mail"}, "not a message group"),
    "a long group": ("sqs", "SendMessage", {**MESSAGE, "MessageGroupId": "a" * 129}, "not a message group"),
    "eleven attributes": (
        "sqs",
        "SendMessage",
        {**MESSAGE, "MessageAttributes": {f"a{n}": {"DataType": "String", "StringValue": "1"} for n in range(11)}},
        "11 attributes",
    ),
    "an empty attribute": (*attribute(StringValue=""), "attribute a: is empty"),
    "an attribute with a control character": (*attribute(StringValue="\0"), "a character that SQS rejects"),
    "an attribute of AWS's": (*attribute("AWS.Trace"), "not an attribute's name"),
    "an attribute's name with two dots": (*attribute("a..b"), "not an attribute's name"),
    "an attribute's name that ends with a dot": (*attribute("a."), "not an attribute's name"),
    "an attribute of no type": (*attribute(DataType="Text"), "is not a type"),
    "an attribute that is no number": (*attribute(DataType="Number", StringValue="x"), "is not a number"),
    "eleven entries": (*batch(*[{}] * 11), "11 entries"),
    "no entry": (*batch(), "0 entries"),
    "an id twice": (*batch({"Id": "1"}, {"Id": "1"}), "the same id"),
    "an id with a space": (*batch({"Id": "a b"}), "not an entry's id"),
    "a large batch": (*batch(*[{"MessageBody": "x" * 110_000}] * 10), "the batch takes"),
    "a fault of one entry": (*batch({}, {"DelaySeconds": -1}), "entry 1: DelaySeconds: -1"),
    "eleven messages": ("sqs", "ReceiveMessage", {"QueueUrl": "q", "MaxNumberOfMessages": 11}, "MaxNumberOfMessages: 11"),
    "a long wait": ("sqs", "ReceiveMessage", {"QueueUrl": "q", "WaitTimeSeconds": 21}, "WaitTimeSeconds: 21"),
    "a message that is hidden for long": (
        "sqs",
        "ChangeMessageVisibilityBatch",
        {"QueueUrl": "q", "Entries": [{"Id": "0", "ReceiptHandle": "h", "VisibilityTimeout": 43_201}]},
        "VisibilityTimeout: 43201",
    ),
    # the others
    "a long object key": ("s3", "GetObject", {"Bucket": "b", "Key": "é" * 513}, "Key: takes 1026 bytes"),
    "large metadata": ("s3", "PutObject", {"Bucket": "b", "Key": "k", "Metadata": {"a": "x" * 2048}}, "Metadata: takes"),
    "metadata with Unicode": ("s3", "PutObject", {"Bucket": "b", "Key": "k", "Metadata": {"a": "é"}}, "printable ASCII"),
    "a content type with a line break": ("s3", "PutObject", {"Bucket": "b", "Key": "k", "ContentType": "a/b\r\nx: y"}, "printable ASCII"),
    "a detail that is no object": (*event(Detail="[]"), "not a JSON object"),
    "a detail that is no JSON": (*event(Detail='{"a": NaN}'), "not JSON"),
    "a detail that is nested deep": (*event(Detail='{"a":' + "[" * 1000 + "]" * 1000 + "}"), "nested too deep"),
    "an event without a detail": (*event(Detail=""), "lacks Source, DetailType or Detail"),
    "an event of AWS's": (*event(Source="aws.ses"), "one of AWS's own"),
    "a long type of event": (*event(DetailType="x" * 129), "more than 128"),
    "large events": (*event(Detail=json.dumps({"a": "x" * 1_000_000})), "the entries take"),
    "a large mail": (*mail(RawMessage={"Data": b64encode(b"x" * 10_485_761).decode()}), "more than 10485760"),
    "a larger one": (*large_mail(Content={"Raw": {"Data": b"x" * 41_943_041}}), "at most 41943040"),
    "a large mail that is not raw": (*large_mail(Content={"Simple": {"Subject": {"Data": ""}, "Body": {}}}), "no raw message"),
    "51 recipients of a large mail": (*large_mail(Destination={"ToAddresses": ["a@b.example"] * 51}), "51 addresses"),
    "nobody": (*large_mail(Destination={}), "0 addresses"),
    "an address with Unicode in a large mail": (*large_mail(FromEmailAddress="jö@b.example"), "not ASCII"),
    "tags of a large mail for nobody": (*large_mail(EmailTags=[{"Name": "a", "Value": "b"}]), "none is named"),
    "51 recipients": (*mail(Destinations=["a@b.example"] * 51), "51, more than 50"),
    "an address with Unicode": (*mail(Destinations=["jö@b.example"]), "not ASCII"),
    "a tag with a space": (*mail(ConfigurationSetName="c", Tags=[{"Name": "a", "Value": "b c"}]), "characters that SES rejects"),
    "a tag twice": (*mail(ConfigurationSetName="c", Tags=[{"Name": "a", "Value": "b"}] * 2), "given twice"),
    "51 tags": (*mail(ConfigurationSetName="c", Tags=[{"Name": str(n), "Value": "b"} for n in range(51)]), "51, more than 50"),
    "tags for nobody": (*mail(Tags=[{"Name": "a", "Value": "b"}]), "none is named"),
    "a large context": ("kms", "Decrypt", {"CiphertextBlob": b"x", "EncryptionContext": {"a": "x" * 8192}}, "more than 8192"),
    "a long session policy": ("sts", "AssumeRole", {**ROLE, "Policy": '{"Version":"2012-10-17"}' + " " * 2048}, "more than 2048"),
    "a session policy that is no JSON": ("sts", "AssumeRole", {**ROLE, "Policy": "{"}, "is not JSON"),
}  # fmt: skip  # one call a line


@cache
def described(service: str) -> ServiceModel:
    """Return botocore's model of a service."""
    return botocore.session.get_session().get_service_model(service)


def broken(service: str, operation: str, params: Mapping[str, Any]) -> list[str]:
    return [breach.rule for breach in breaches_of(described(service).operation_model(operation), params)]


@pytest.mark.parametrize(("service", "operation", "params"), GOOD, ids=[f"{service} {operation}" for service, operation, _ in GOOD])
def test_a_call_within_the_rules_passes(service: str, operation: str, params: Mapping[str, Any]) -> None:
    """Also at the limits."""
    assert broken(service, operation, params) == []


@pytest.mark.parametrize(("service", "operation", "params", "rule"), BAD.values(), ids=BAD)
def test_a_violated_rule_is_named(service: str, operation: str, params: Mapping[str, Any], rule: str) -> None:
    """Only the rule that the call violates."""
    assert [rule in found for found in broken(service, operation, params)] == [True]


@pytest.mark.parametrize("service", ["dynamodb", "sqs", "s3", "events", "ses", "sesv2", "kms", "sts"])
def test_every_pattern_of_our_calls_can_be_checked(service: str) -> None:
    """A pattern of botocore's that Python interprets differently must be on the list of exceptions."""
    shapes = [described(service).shape_for(name) for name in described(service).shape_names]
    for pattern in {shape.metadata["pattern"] for shape in shapes if "pattern" in shape.metadata}:
        model.compiled(pattern)  # raises if it is neither


# -- the hook ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("service", "call", "rule"),
    [
        ("dynamodb", lambda it: it.get_item(TableName="MessagesTable", Key={**record_key("a", "r"), "requestId": {"S": ""}}), "is empty"),
        ("sqs", lambda it: it.send_message(QueueUrl="http://q", MessageBody="\uffff"), "a character"),
        ("sts", lambda it: it.assume_role(RoleArn=ROLE["RoleArn"], RoleSessionName="a b"), "does not match"),
        ("s3", lambda it: it.put_object(Bucket="bucket", Key="k" * 1025, Body=b""), "1025"),
        ("s3", lambda it: it.generate_presigned_url("put_object", Params={"Bucket": "bucket", "Key": "k" * 1025}), "1025"),
        ("ses", lambda it: it.send_raw_email(RawMessage={"Data": b"x"}, Destinations=["a@b.example"] * 51), "51"),
    ],
)  # fmt: skip
def test_every_protocol_is_read(breaches: list[Breach], service: str, call: Any, rule: str) -> None:
    """JSON, forms, paths and presigned URLs, from any client."""
    with suppress(ClientError):  # the emulator may refuse it too
        call(boto3.client(service, region_name=REGION))
    assert breaches
    assert all(rule in breach.rule for breach in breaches)
    breaches.clear()


@pytest.mark.usefixtures("aws")
def test_direct_calls_are_read_too(breaches: list[Breach]) -> None:
    """UpdateItem and SendRawEmail are sent directly, and only the first of each through botocore's endpoint."""
    update = {"TableName": "MessagesTable", "Key": record_key("acme", "r1"), "UpdateExpression": "SET a = :a"}
    wiring.dynamodb().update_item(**update, ExpressionAttributeValues={":a": {"N": "1"}})
    with patch.object(Endpoint, "make_request", side_effect=AssertionError("by botocore")):
        wiring.dynamodb().update_item(**update, ExpressionAttributeValues={":a": {"N": "inf"}})
    assert [breach.rule for breach in breaches] == ["ExpressionAttributeValues.:a: 'inf' is not a finite number"]
    breaches.clear()


# -- metrics -------------------------------------------------------------------------------------------------------------


def line(*, metric: Mapping[str, Any] | None = None, directive: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    definition = {
        "Namespace": "Tenantmail",
        "Dimensions": [["service"]],
        "Metrics": [{"Name": "Sent", "Unit": "Count", **(metric or {})}],
    }
    return {
        "_aws": {"Timestamp": 1, "CloudWatchMetrics": [{**definition, **(directive or {})}]},
        "service": "mail",
        "Sent": [1.0],
        **fields,
    }


def test_valid_metrics_pass() -> None:
    """A hundred values of each of a hundred metrics."""
    many = [{"Name": f"m{n}", "Unit": "Milliseconds"} for n in range(100)]
    assert list(metrics.broken(line(directive={"Metrics": many}, **{f"m{n}": [1.0] * 100 for n in range(100)}))) == []


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        (line(_aws={"Timestamp": "now", "CloudWatchMetrics": []}), "the time"),
        (line(directive={"Namespace": ""}), "not a namespace"),
        (line(directive={"Metrics": []}), "0 metrics"),
        (line(directive={"Metrics": [{"Name": "Sent"}] * 101}), "101 metrics"),
        (line(directive={"Dimensions": [[f"d{n}" for n in range(31)]]}, **{f"d{n}": "x" for n in range(31)}), "31 dimensions"),
        (line(service=""), "has no value"),
        (line(service="x" * 1025), "too long"),
        (line(service="é"), "not printable ASCII"),
        (line(directive={"Dimensions": [["code"]]}), "dimension code: has no value"),
        (line(metric={"Unit": "Parsecs"}), "not a unit"),
        (line(metric={"Name": "x" * 1025}, **{"x" * 1025: 1}), "empty or too long"),
        (line(Sent=[1.0] * 101), "101 values"),
        (line(Sent=[float("nan")]), "not a finite number"),
        (line(Sent=[]), "0 values"),
    ],
)
def test_an_invalid_line_of_metrics_is_named(written: Mapping[str, Any], rule: str) -> None:
    """CloudWatch would drop it silently."""
    assert [rule in found for found in metrics.broken(written)] == [True]

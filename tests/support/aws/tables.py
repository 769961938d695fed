"""Create the resources of `template.yaml` in moto or any other local AWS, so that schema and environment are defined once."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ROOT = Path(__file__).resolve().parents[3]
QUEUE_ATTRIBUTES = ("VisibilityTimeout", "MessageRetentionPeriod", "MaximumMessageSize")
TABLE_PROPERTIES = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")


class _Loader(yaml.SafeLoader):
    """Reads `!Sub text` as `{"Fn::Sub": "text"}`, as CloudFormation does."""


def _intrinsic(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise TypeError(node)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".")
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _intrinsic)


@cache
def _client(service: Any) -> Any:
    """Return a cached client of a service: creating one takes longer than a call of the emulator."""
    return boto3.client(service)


@cache
def template() -> dict[str, Any]:
    """Return `template.yaml`, its short intrinsics in long form."""
    loaded: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), _Loader)  # noqa: S506 - a SafeLoader with CloudFormation's tags
    return loaded


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """Return the resources of one type by their logical ids."""
    return {name: resource for name, resource in template()["Resources"].items() if resource["Type"] == kind}


def create_tables(client: "DynamoDBClient", names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Create every table with its indexes; `names` maps logical ids to table names (default: the logical id). Return the names."""
    made = {}
    for logical_id, resource in resources("AWS::DynamoDB::Table").items():
        made[logical_id] = (names or {}).get(logical_id, logical_id)
        properties = {p: v for p, v in resource["Properties"].items() if p in TABLE_PROPERTIES}
        if stream := resource["Properties"].get("StreamSpecification"):
            properties["StreamSpecification"] = {"StreamEnabled": True, **stream}  # what CloudFormation adds
        client.create_table(TableName=made[logical_id], **properties)
    return made


def create_stack_resources() -> dict[str, str]:
    """Create tables, queues, buckets, keys and buses with default clients; return the functions' environment, all of them merged."""
    references = {name: str(p["Default"]) for name, p in template().get("Parameters", {}).items() if "Default" in p}
    references |= {"AWS::StackName": "tenantmail"} | create_tables(_client("dynamodb"))
    references |= {name: name for name in _event_sources()}
    attributes: dict[str, str] = {}
    for kind, create in CREATORS.items():
        for logical_id, resource in resources(kind).items():
            references[logical_id], attributes[logical_id] = create(logical_id, resource.get("Properties", {}))
    return dict(_environment(references, attributes))


def _event_sources() -> Iterator[str]:
    """Yield the names that SAM gives event sources; moto has no event source mappings that call functions."""
    for function, resource in resources("AWS::Serverless::Function").items():
        yield from (f"{function}{name}" for name, event in resource["Properties"]["Events"].items() if event["Type"] == "SQS")


def _create_queue(logical_id: str, properties: Mapping[str, Any]) -> tuple[str, str]:
    sqs = _client("sqs")
    attributes: Any = {name: str(properties[name]) for name in QUEUE_ATTRIBUTES if name in properties}
    url = sqs.create_queue(QueueName=logical_id, Attributes=attributes)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def _create_bucket(logical_id: str, properties: Mapping[str, Any]) -> tuple[str, str]:
    s3, name = _client("s3"), logical_id.lower()
    region: Any = s3.meta.region_name
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
    return name, f"arn:aws:s3:::{name}"


def _create_key(logical_id: str, properties: Mapping[str, Any]) -> tuple[str, str]:
    kind: Any = {name: properties[name] for name in ("KeySpec", "KeyUsage") if name in properties}
    metadata = _client("kms").create_key(Description=logical_id, **kind)["KeyMetadata"]
    return metadata["KeyId"], metadata["Arn"]


def _create_bus(logical_id: str, _: Mapping[str, Any]) -> tuple[str, str]:
    return logical_id, _client("events").create_event_bus(Name=logical_id)["EventBusArn"]


@cache
def _account() -> str:
    return str(_client("sts").get_caller_identity()["Account"])


def _name_role(logical_id: str, _: Mapping[str, Any]) -> tuple[str, str]:
    """Return a role's ARN; no role is assumed here."""
    return logical_id, f"arn:aws:iam::{_account()}:role/{logical_id}"


CREATORS = {
    "AWS::SQS::Queue": _create_queue,
    "AWS::S3::Bucket": _create_bucket,
    "AWS::KMS::Key": _create_key,
    "AWS::Events::EventBus": _create_bus,
    "AWS::IAM::Role": _name_role,
}
"""Creates one resource of a type, from its logical id and properties; returns the values of its `Ref` and `GetAtt Arn`."""


def variables(function: str) -> dict[str, Any]:
    """Return a function's environment in the template, including that of `Globals`."""
    shared: dict[str, Any] = template()["Globals"]["Function"]["Environment"]["Variables"]
    own: dict[str, Any] = template()["Resources"][function]["Properties"].get("Environment", {}).get("Variables", {})
    return shared | own


def _environment(references: Mapping[str, str], attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for function in resources("AWS::Serverless::Function"):
        for name, value in variables(function).items():
            match value:
                case {"Ref": target}:
                    yield name, references[target]
                case {"Fn::GetAtt": [target, "Arn"]}:
                    yield name, attributes[target]
                case {"Fn::If": [_, _, str(otherwise)]}:  # of a parameter that is not set
                    yield name, otherwise
                case dict():
                    raise NotImplementedError(f"{function}.{name}: {value}")
                case _:
                    yield name, str(value)

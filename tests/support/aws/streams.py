"""Records of a table's stream in a Lambda event, created from items or read from a table in moto."""

import base64
from collections.abc import Mapping
from itertools import count
from typing import Any

import boto3
from botocore.config import Config

_numbers = count(1)


def stream_record(new: Mapping[str, Any], old: Mapping[str, Any] | None = None, *, event_id: str | None = None) -> dict[str, Any]:
    """Return the record of one write, with an item's binary values in base64."""
    names = ("tenantShard", "requestId") if "tenantShard" in new else ("tenantId", "email")
    keys = {name: new[name] for name in names if name in new}
    images = {"Keys": keys, "NewImage": _json(new), **({"OldImage": _json(old)} if old else {})}
    return {"eventID": event_id or f"e-{next(_numbers)}", "eventName": "MODIFY" if old else "INSERT", "dynamodb": images}


def read_stream(table: str) -> list[dict[str, Any]]:
    """Return all writes to a table in moto except deletions, which the template's filters exclude."""
    # moto does not serve account-based endpoints, which botocore derives from the ARN
    streams: Any = boto3.client("dynamodbstreams", config=Config(account_id_endpoint_mode="disabled"))
    arn = boto3.client("dynamodb").describe_table(TableName=table)["Table"]["LatestStreamArn"]
    [shard] = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    start = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    written = [record["dynamodb"] for record in streams.get_records(ShardIterator=start)["Records"] if record["eventName"] != "REMOVE"]
    return [
        stream_record(images["NewImage"], _unless_keys_only(images, "OldImage"))
        for images in written
        if _unless_keys_only(images, "NewImage")
    ]


def _unless_keys_only(images: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return an image; in moto an UpdateItem that creates an item makes two writes, the first with only the key."""
    image: Mapping[str, Any] = images.get(name, {})
    return image if len(image) > len(images["Keys"]) else None


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: _json(part) for name, part in value.items()}
    return [_json(part) for part in value] if isinstance(value, list) else value

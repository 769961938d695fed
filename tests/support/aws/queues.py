"""Messages of a queue in moto, and their records in a Lambda event."""

from collections.abc import Mapping
from typing import Any

import boto3


def taken(url: str) -> list[dict[str, Any]]:
    """Receive all messages of a queue, as Lambda's event source does."""
    found: Any = boto3.client("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
    )
    return list(found.get("Messages", []))


def record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a received message as a record of a Lambda event."""
    attributes = message.get("MessageAttributes", {}).items()
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {name: {"stringValue": value["StringValue"], "dataType": value["DataType"]} for name, value in attributes},
    }

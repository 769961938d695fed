"""What lies on a queue in moto, and the records that Lambda's event source makes of it."""

from collections.abc import Mapping
from typing import Any

import boto3


def taken(url: str) -> list[dict[str, Any]]:
    """Receive what is on a queue, as Lambda's event source does."""
    found: Any = boto3.client("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
    )
    return list(found.get("Messages", []))


def record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a received message into the record that Lambda hands to the function."""
    attributes = message.get("MessageAttributes", {}).items()
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {name: {"stringValue": value["StringValue"], "dataType": value["DataType"]} for name, value in attributes},
    }

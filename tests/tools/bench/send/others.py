"""The alternatives: a loop around boto3, and Powertools' batch around that; and the floor for anything in Python."""

import json
import os
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formataddr
from typing import Any
from urllib.parse import urlencode

import boto3
import urllib3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tools.bench.send.timing import batches, repeated, run_named
from tools.bench.send.workload import EVERYONE, LARGE, REGION, TENANTS, message, octets

CONFIGS = {tenant.tenant_id: tenant.config for tenant in EVERYONE}


class Plain:
    """The simplest implementation: one client per tenant, a claim, a mail composed with Python's `email`, a mark."""

    def __init__(self) -> None:
        self._dynamodb = boto3.client("dynamodb")
        self._clients: dict[str, Any] = {}

    def send(self, record: Any) -> None:
        body = record["body"] if isinstance(record, Mapping) else record.body
        request = json.loads(body)
        key = {"tenantShard": {"S": request["tenantId"]}, "requestId": {"S": request["requestId"]}}
        self._dynamodb.put_item(
            TableName="messages",
            Item={**key, "status": {"S": "sending"}, "createdAt": {"S": datetime.now(UTC).isoformat()}},
            ConditionExpression="attribute_not_exists(tenantShard)",
        )
        message_id = self.send_mail(request["tenantId"], request["message"])
        self._dynamodb.update_item(
            TableName="messages",
            Key=key,
            UpdateExpression="SET #status = :sent, #messageId = :id",
            ExpressionAttributeNames={"#status": "status", "#messageId": "messageId"},
            ExpressionAttributeValues={":sent": {"S": "sent"}, ":id": {"S": message_id}},
        )

    def send_mail(self, tenant_id: str, content: Mapping[str, Any], file: bytes | None = None) -> str:
        config = CONFIGS[tenant_id]
        mail = compose(config, content, file)
        recipients = [box["email"] for box in content["to"]]
        answer = self._client(tenant_id, config).send_raw_email(
            Source=config["fromAddress"], Destinations=recipients, RawMessage={"Data": mail.as_bytes()}
        )
        return str(answer["MessageId"])

    def _client(self, tenant_id: str, config: Mapping[str, Any]) -> Any:
        if tenant_id not in self._clients:
            self._clients[tenant_id] = boto3.client(
                "ses",
                region_name=config["region"],
                aws_access_key_id=config["accessKeyId"],
                aws_secret_access_key=config["secretAccessKey"],
            )
        return self._clients[tenant_id]


def compose(config: Mapping[str, Any], content: Mapping[str, Any], file: bytes | None) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = formataddr((config["fromName"], config["fromAddress"]))
    mail["To"] = ", ".join(formataddr((box["name"], box["email"])) for box in content["to"])
    mail["Subject"] = content["subject"]
    mail.set_content(content["text"])
    mail.add_alternative(content["html"], subtype="html")
    if file is not None:
        mail.add_attachment(file, maintype="application", subtype="pdf", filename="Rechnung.pdf")
    return mail


def loop(*, count: int = 1) -> dict[str, float]:
    """Send messages sequentially."""
    sender = Plain()
    return batches(lambda batch: list(map(sender.send, batch["Records"])), count, warm_up=TENANTS)


def loop_large(*, count: int = 5) -> dict[str, float]:
    """Compose and send a message with a file that is in memory."""
    sender, content, file = Plain(), message(), octets(LARGE)
    return repeated(lambda: sender.send_mail("tenant-0", content, file), count)


def powertools(*, count: int = 1) -> dict[str, float]:
    """Send messages sequentially, with Powertools' BatchProcessor."""
    sender, processor = Plain(), BatchProcessor(event_type=EventType.SQS)

    def handle(batch: Mapping[str, Any]) -> None:
        answer = process_partial_response(event=dict(batch), record_handler=sender.send, processor=processor)
        assert answer == {"batchItemFailures": []}

    return batches(handle, count, warm_up=TENANTS)


# ── the floor ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Floor:
    """Three requests by urllib3, signed by botocore's signer, and nothing else: the minimum for any code that uses these two libraries."""

    def __init__(self) -> None:
        threads = int(os.environ["SEND_THREADS"])
        self._pool = urllib3.PoolManager(ca_certs=os.environ["AWS_CA_BUNDLE"], maxsize=threads, retries=False)
        self._dynamodb, self._ses = os.environ["AWS_ENDPOINT_URL_DYNAMODB"], os.environ["AWS_ENDPOINT_URL_SES"]
        self._own = SigV4Auth(Credentials("AKIAOWN", "secret", "token"), "dynamodb", REGION)

    def send(self, record: Mapping[str, Any]) -> None:
        request = json.loads(record["body"])
        config = CONFIGS[request["tenantId"]]
        key = {"tenantShard": {"S": request["tenantId"]}, "requestId": {"S": request["requestId"]}}
        claim = {
            "TableName": "messages",
            "Item": {**key, "status": {"S": "sending"}},
            "ConditionExpression": "attribute_not_exists(tenantShard)",
        }
        self._write("PutItem", claim)
        mime = b64encode(request["message"]["html"].encode() + request["message"]["text"].encode())
        form = {"Action": "SendRawEmail", "Version": "2010-12-01", "Source": config["fromAddress"], "RawMessage.Data": mime}
        signer = SigV4Auth(Credentials(config["accessKeyId"], config["secretAccessKey"]), "ses", REGION)
        self._call(signer, self._ses, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode())
        mark = {"TableName": "messages", "Key": key, "UpdateExpression": "SET #s = :s", "ExpressionAttributeNames": {"#s": "status"}}
        self._write("UpdateItem", {**mark, "ExpressionAttributeValues": {":s": {"S": "sent"}}})

    def _write(self, operation: str, request: Mapping[str, Any]) -> None:
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        json.loads(self._call(self._own, self._dynamodb, headers, json.dumps(request).encode()))

    def _call(self, signer: SigV4Auth, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
        request = AWSRequest("POST", f"{url}/", headers=headers, data=body)
        signer.add_auth(request)
        reply = self._pool.request("POST", f"{url}/", body=body, headers=dict(request.headers.items()))
        assert reply.status == 200
        return reply.data


def floor(*, count: int = 5) -> dict[str, float]:
    """Send in parallel with the minimum that these libraries allow."""
    bare, workers = Floor(), ThreadPoolExecutor(int(os.environ["SEND_THREADS"]))
    return batches(lambda batch: list(workers.map(bare.send, batch["Records"])), count)


if __name__ == "__main__":
    run_named(loop, loop_large, powertools, floor)

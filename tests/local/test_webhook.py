"""The webhook posts events to the receiver of docs/deploy.md, with the template's properties.

MiniStack creates no connection and no API destination from a template, but supports both: the test creates them from the properties.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import pytest
import urllib3

from support.aws import tables
from tools.local_aws.proxy import reserve_port
from tools.local_aws.running import LocalAws
from tools.local_aws.server import ROOT, is_taken
from tools.local_aws.tenants import Tenant

SECRET = "3f9c1a"
WAIT = 30.0  # seconds
POLL = 0.02  # seconds; the receiver does not report that it listens


def receiver() -> str:
    """Return the guide's program."""
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    [program] = [block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "BaseHTTPRequestHandler" in block]
    return program


@contextmanager
def receiving(port: int) -> Iterator[Iterator[str]]:
    """Run the receiver; yield the lines that it prints."""
    shell = {"PATH": os.environ["PATH"], "WEBHOOK_SECRET": SECRET, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", receiver()]
    with subprocess.Popen(command, env=shell, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        limit = Timer(WAIT, process.kill)  # ends the lines, and a wait for one
        limit.start()
        try:
            while not is_taken(port):
                time.sleep(POLL)
            yield iter(process.stdout)
        finally:
            limit.cancel()
            process.kill()


def make_webhook(aws: LocalAws, url: str, secret: str) -> None:
    """Create what the template creates with `WebhookUrl`."""
    events, resources = aws.client("events"), tables.template()["Resources"]
    connection, destination = (dict(resources[name]["Properties"]) for name in ("WebhookConnection", "WebhookDestination"))
    api_key = connection["AuthParameters"]["ApiKeyAuthParameters"]
    auth = {"ApiKeyAuthParameters": {"ApiKeyName": api_key["ApiKeyName"], "ApiKeyValue": secret}}
    made = events.create_connection(Name="webhook", AuthorizationType=connection["AuthorizationType"], AuthParameters=auth)
    arn = events.create_api_destination(
        Name="webhook", ConnectionArn=made["ConnectionArn"], HttpMethod=destination["HttpMethod"], InvocationEndpoint=url
    )["ApiDestinationArn"]
    rule = resources["WebhookRule"]["Properties"]
    [bus] = [bus["Name"] for bus in events.list_event_buses()["EventBuses"] if bus["Name"].endswith("-outcomes")]
    events.put_rule(Name="webhook", EventBusName=bus, EventPattern=json.dumps(rule["EventPattern"]))
    events.put_targets(Rule="webhook", EventBusName=bus, Targets=[{"Id": rule["Targets"][0]["Id"], "Arn": arn}])


def remove_webhook(aws: LocalAws) -> None:
    events = aws.client("events")
    [bus] = [bus["Name"] for bus in events.list_event_buses()["EventBuses"] if bus["Name"].endswith("-outcomes")]
    events.remove_targets(Rule="webhook", EventBusName=bus, Ids=["Webhook"])
    events.delete_rule(Name="webhook", EventBusName=bus)
    events.delete_api_destination(Name="webhook")
    events.delete_connection(Name="webhook")


@pytest.fixture
def port() -> Iterator[int]:
    with reserve_port() as held:
        yield int(held.getsockname()[1])


def test_the_receiver_of_the_guide_is_ten_lines() -> None:
    """Without imports and blank lines."""
    own = [line for line in receiver().splitlines() if line and not line.startswith(("import", "from"))]
    assert len(own) <= 10


@pytest.mark.parametrize(("secret", "status"), [("", 401), ("guessed", 401), (SECRET, 204)])
def test_the_receiver_accepts_nothing_without_the_secret(port: int, secret: str, status: int) -> None:
    """Otherwise anyone who knows the URL could send false events."""
    with receiving(port):
        answer = urllib3.request("POST", f"http://127.0.0.1:{port}/", body=b'{"detail": {}}', headers={"Authorization": secret})
    assert answer.status == status


def test_events_are_posted_with_the_secret(aws: LocalAws, tenant: Tenant, port: int) -> None:
    """To a receiver that requires it: the end of a request, with the id by which a consumer deduplicates."""
    with receiving(port) as lines:
        make_webhook(aws, f"http://127.0.0.1:{port}/events", SECRET)
        try:
            message = {"to": [{"email": "jo@example.com"}], "subject": "hi", "text": "hi"}
            assert aws.api.submit(tenant.tenant_id, {"requestId": "posted", "message": message}).status == 202
            detail = next(line for line in lines if "'posted'" in line)
        finally:
            remove_webhook(aws)
    assert tenant.tenant_id in detail
    assert "'status': 'sent'" in detail
    assert "jo@example.com" not in detail

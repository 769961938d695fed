"""The operators' commands, as they type them, on the local AWS."""

import json
import subprocess
import sys
from typing import Any

import pytest

from local_aws import worker
from local_aws.running import LocalAws
from local_aws.server import NO_OWN_SETUP, PLATFORM
from local_aws.tenants import Tenant


@pytest.fixture
def env(aws: LocalAws) -> dict[str, str]:
    """What an operator's shell has: credentials and an endpoint; the stack tells the rest."""
    shell = {name: value for name, value in worker.environment(aws, "SendFunction").items() if name in ("PATH", "PYTHONPATH")}
    return {**shell, **PLATFORM, **NO_OWN_SETUP, "AWS_ENDPOINT_URL": aws.addresses.aws}


def operate(env: dict[str, str], *arguments: str) -> list[list[str]]:
    done = subprocess.run([sys.executable, "-m", "mailer.operate", *arguments], env=env, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("{")]


def bury(aws: LocalAws, tenant: Tenant, request_id: str) -> None:
    """Put a good request on the dead-letter queue, as SQS does by itself."""
    message = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hi"}
    body = json.dumps({"tenantId": tenant.tenant_id, "requestId": request_id, "message": message})
    aws.client("sqs").send_message(QueueUrl=aws.stack.outputs["DeadLetterQueueUrl"], MessageBody=body)


def test_a_dead_letter_is_listed_and_sent_after_its_redrive(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """It goes out once, and is a dead letter no more."""
    bury(aws, tenant, "again")
    assert [tenant.tenant_id, "moved_by_sqs", "1"] in operate(env, "dlq", "list")
    assert operate(env, "dlq", "redrive", "--tenant", tenant.tenant_id)[0] == [tenant.tenant_id, "again", "redriven"]
    assert aws.api.wait_for(tenant.tenant_id, "again")["status"] == "sent"
    assert operate(env, "dlq", "list", "--tenant", tenant.tenant_id) == [["0 on the dead-letter queue"]]


def test_a_dropped_dead_letter_leaves_a_record(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """Nothing disappears without one that says so."""
    bury(aws, tenant, "given-up")
    assert operate(env, "dlq", "drop", "--tenant", tenant.tenant_id)[0] == [tenant.tenant_id, "given-up", "dropped"]
    record = aws.api.status(tenant.tenant_id, "given-up").body
    assert (record["status"], record["error"]["code"]) == ("failed", "dropped")


def test_a_drop_must_name_what_it_drops(env: dict[str, str]) -> None:
    """Not the whole queue by a slip."""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        operate(env, "dlq", "drop")
    assert refused.value.returncode == 2


@pytest.mark.parametrize("missing", ["AWS_DEFAULT_REGION", "the stack"])
def test_what_the_shell_lacks_is_said(env: dict[str, str], missing: str) -> None:
    """In a sentence, not in a traceback."""
    shell = {name: value for name, value in env.items() if name != missing}
    stack = ["--stack", "no-such-stack"] if missing == "the stack" else []
    command = [sys.executable, "-m", "mailer.operate", *stack, "dlq", "list"]
    refused = subprocess.run(command, env=shell, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "cannot be asked" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_pause_stops_the_intake_until_it_is_resumed(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """The event source is off, then on again, and what waited goes out."""
    operate(env, "pause")
    try:
        assert states(aws) == {"Disabled"}
    finally:
        operate(env, "resume")
    assert states(aws) == {"Enabled"}
    message = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hi"}
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "later", "message": message})
    assert aws.api.wait_for(tenant.tenant_id, "later")["status"] == "sent"


def states(aws: LocalAws) -> set[str]:
    return {source["State"] for source in intake(aws)}


def intake(aws: LocalAws) -> list[Any]:
    queue = aws.stack.outputs["SendQueueArn"]
    sources: list[Any] = aws.client("lambda").list_event_source_mappings(EventSourceArn=queue)["EventSourceMappings"]
    return sources


def test_the_queue_calls_the_version_that_is_live(aws: LocalAws) -> None:
    """So a rollback takes effect, and whoever pauses the intake pauses it for every version."""
    functions = aws.client("lambda")
    [source] = intake(aws)
    name, _, alias = source["FunctionArn"].rpartition(":")
    assert alias == "live"
    assert functions.get_alias(FunctionName=name, Name=alias)["FunctionVersion"].isdigit()

"""Kill the worker at the two critical moments, and check the record: real processes, the deployed stack, kill -9."""

import json
from typing import Any

import pytest

from mailer.adapters.dynamodb.messages_table import record_key
from tools.local_aws import worker
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant


@pytest.fixture
def env(aws: LocalAws) -> dict[str, str]:
    return worker.environment(aws, "SendFunction")


@pytest.fixture
def body(tenant: Tenant) -> str:
    message = {"to": [{"email": "jo@customer.example"}], "subject": "once", "text": "once"}
    return json.dumps({"tenantId": tenant.tenant_id, "requestId": "crash", "message": message})


def handle(env: dict[str, str], body: str, receives: int = 1) -> Any:
    """Let a worker process a batch of one completely."""
    with worker.start(worker.handle, worker.sqs_event(body, receives=receives), env=env) as process:
        return process.next_result(60)


def kill_while(aws: LocalAws, env: dict[str, str], body: str, fault: int) -> None:
    """Start a worker on the request and kill it while the fault blocks it."""
    aws.control.forget_requests()
    with worker.start(worker.handle, worker.sqs_event(body), env=env) as process:
        hung = aws.control.wait_for_requests(1, outcome="hung", seconds=30)
        process.kill()
    assert hung[0].faults == [fault]
    aws.control.clear_faults()


def record_of(aws: LocalAws, tenant: Tenant) -> dict[str, Any]:
    answer = aws.api.status(tenant.tenant_id, "crash")
    assert answer.status == 200
    return answer.body


def expire_deadline(aws: LocalAws, tenant: Tenant) -> None:
    """Set the record's deadline back, instead of waiting for it."""
    aws.client("dynamodb").update_item(
        TableName=aws.stack.outputs["MessagesTableName"],
        Key=record_key(tenant.tenant_id, "crash"),
        UpdateExpression="SET deadline = :past",
        ExpressionAttributeValues={":past": {"N": "1"}},
    )


def test_killed_between_fence_and_ses_the_record_says_sending_then_unknown(
    aws: LocalAws, tenant: Tenant, env: dict[str, str], body: str
) -> None:
    """SES never responded; no worker continues the attempt, and after its deadline it is unknown and not sent again automatically."""
    sent_before = len(aws.control.mails(account=tenant.account))
    kill_while(aws, env, body, aws.control.inject("hang", access_key=tenant.access_key, times=1))
    assert record_of(aws, tenant)["status"] == "sending"

    expire_deadline(aws, tenant)
    assert handle(env, body, receives=2) == {"batchItemFailures": []}
    record = record_of(aws, tenant)
    assert (record["status"], record["error"]["code"], record["attempts"]) == ("unknown", "outcome_unknown", 1)
    assert len(aws.control.mails(account=tenant.account)) == sent_before


def test_killed_between_ses_and_the_status_write_the_mail_is_not_sent_again(
    aws: LocalAws, tenant: Tenant, env: dict[str, str], body: str
) -> None:
    """SES accepted it and nothing was recorded: the record ends as unknown, with one mail in SES's ledger."""
    sent_before = len(aws.control.mails(account=tenant.account))
    hold_the_second_write = aws.control.inject(
        "hang", service="dynamodb", operation="UpdateItem", text=f'"{tenant.tenant_id}#', skip=1, times=1
    )
    kill_while(aws, env, body, hold_the_second_write)
    assert record_of(aws, tenant)["status"] == "sending"
    assert len(aws.control.mails(account=tenant.account)) == sent_before + 1

    expire_deadline(aws, tenant)
    assert handle(env, body, receives=2) == {"batchItemFailures": []}
    assert record_of(aws, tenant)["status"] == "unknown"
    assert len(aws.control.mails(account=tenant.account)) == sent_before + 1


def test_a_hung_ses_receives_exactly_one_request(aws: LocalAws, tenant: Tenant, env: dict[str, str], body: str) -> None:
    """The SDK's default would repeat it after the read timeout; here it is unknown after one."""
    aws.control.forget_requests()
    aws.control.inject("hang", access_key=tenant.access_key)
    assert handle(env, body) == {"batchItemFailures": []}
    assert record_of(aws, tenant)["status"] == "unknown"
    assert len(aws.control.requests(service="ses", account=tenant.account)) == 1

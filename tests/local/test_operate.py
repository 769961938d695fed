"""The operators' commands, as they type them, on the local AWS."""

import json
import os
import secrets
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailer.adapters.event_source import LambdaEventSource
from tools.local_aws.running import LocalAws
from tools.local_aws.server import NO_OWN_SETUP, ROOT
from tools.local_aws.tenants import Tenant
from tools.local_aws.up import exports

MESSAGE = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hi"}


@pytest.fixture
def env(aws: LocalAws) -> dict[str, str]:
    """Return an operator's environment: what `make up` prints, and the PATH."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", **NO_OWN_SETUP, **exports(aws)}


def run(env: dict[str, str], *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailer_ops.operate", *arguments]
    return subprocess.run(command, env=env, input=said, capture_output=True, text=True, check=False)


def operate(env: dict[str, str], *arguments: str, said: str = "") -> list[str]:
    done = run(env, *arguments, said=said)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def put_on_dead_letter_queue(aws: LocalAws, tenant: Tenant, request_id: str) -> None:
    """Put a valid request on the dead-letter queue, as SQS itself does."""
    body = json.dumps({"tenantId": tenant.tenant_id, "requestId": request_id, "message": MESSAGE})
    aws.client("sqs").send_message(QueueUrl=aws.stack.outputs["DeadLetterQueueUrl"], MessageBody=body)


def test_a_dead_letter_is_listed_and_sent_after_its_redrive(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """It is sent once, and is no longer a dead letter."""
    put_on_dead_letter_queue(aws, tenant, "again")
    assert f"1  {tenant.tenant_id}  moved_by_sqs" in operate(env, "dlq", "list")
    assert operate(env, "dlq", "redrive", "--tenant", tenant.tenant_id)[:2] == [f"{tenant.tenant_id}  again", "    redriven"]
    assert aws.api.wait_for(tenant.tenant_id, "again")["status"] == "sent"
    assert operate(env, "dlq", "list", "--tenant", tenant.tenant_id) == ["0 on the dead-letter queue"]


def test_a_dropped_dead_letter_leaves_a_record(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """A dropped message ends its record, and its log line is with the functions'."""
    put_on_dead_letter_queue(aws, tenant, "given-up")
    assert operate(env, "dlq", "drop", "--tenant", tenant.tenant_id)[:2] == [f"{tenant.tenant_id}  given-up", "    dropped"]
    assert f"1  {tenant.tenant_id}  failed  dropped" in operate(env, "trouble")
    record = aws.api.status(tenant.tenant_id, "given-up").body
    assert (record["status"], record["error"]["code"]) == ("failed", "dropped")


def test_a_drop_needs_a_selection(env: dict[str, str]) -> None:
    """So that nobody drops the whole queue by mistake."""
    refused = run(env, "dlq", "drop")
    assert (refused.returncode, refused.stderr) == (2, "Name what to drop: --tenant, --request or --reason.\n")


COMMANDS = [
    ("dlq", "list"),
    ("trouble",),
    ("pause",),
    ("ask", "GET", "/tenants/acme/provider"),
    ("erase", "request", "acme", "r1"),
    ("erase", "tenant", "acme"),
    ("replay", "--since", "2026-11-24T08:00:00Z"),
    ("mark",),
]
FAULTS = {
    "no credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no AWS credentials"),
    "unknown credentials": ({"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}, "AWS does not know these credentials"),
    "no region": ({"AWS_DEFAULT_REGION": ""}, "no AWS region"),
    "no such profile": ({"AWS_PROFILE": "nobody"}, "profile (nobody) could not be found"),
    "no endpoint": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
    "no stack": ({"STACK": "no-such-stack"}, "There is no stack no-such-stack in us-east-1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_missing_environment_variable_is_reported(env: dict[str, str], fault: str) -> None:
    """With one sentence that fits the terminal, not a traceback."""
    changes, sentence = FAULTS[fault]
    shell = {name: value for name, value in {**env, **changes}.items() if value}
    refused = run(shell, "--stack", changes.get("STACK", "tenantmail"), "dlq", "list")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert sentence in refused.stderr.replace("\n", " ")
    assert max(map(len, refused.stderr.splitlines())) <= 80


def user(aws: LocalAws, policy: dict[str, Any]) -> dict[str, str]:
    """Create an IAM user of the service's own account with only this policy; return its credentials."""
    iam, name = aws.client("iam"), f"operator-{secrets.token_hex(4)}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="operator", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def policy(aws: LocalAws) -> dict[str, Any]:
    """Read the operator's policy from the guide, for this account."""
    text = (ROOT / "docs/deploy.md").read_text().partition("<!-- operator -->")[2].partition("<!-- operator end -->")[0]
    names = {
        "111122223333": aws.client("sts").get_caller_identity()["Account"],
        "API_ID": aws.stack.api_url.split("/")[-2],
        "log-group:tenantmail-": "log-group:/aws/cloudformation/tenantmail/",  # the local AWS's name of CloudFormation's log groups
        "QUEUE_KEY_ID": aws.stack.outputs["QueueKeyArn"].rpartition("/")[2],
    }
    for name, value in names.items():
        text = text.replace(name, value)
    made: dict[str, Any] = json.loads(text.strip().removeprefix("```json").removesuffix("```"))
    return made


def test_an_operator_needs_only_the_rights_of_the_guide(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """Every command works with them."""
    shell = {**env, **user(aws, policy(aws))}
    put_on_dead_letter_queue(aws, tenant, "redriven")
    put_on_dead_letter_queue(aws, tenant, "dropped")
    operate(shell, "dlq", "list")
    operate(shell, "dlq", "redrive", "--tenant", tenant.tenant_id, "--request", "redriven")
    operate(shell, "dlq", "drop", "--tenant", tenant.tenant_id, "--request", "dropped")
    assert aws.api.wait_for(tenant.tenant_id, "redriven")["status"] == "sent"
    operate(shell, "trouble")
    operate(shell, "pause")
    try:
        operate(shell, "replay", "--since", "2026-11-24T08:00:00Z")
    finally:
        operate(shell, "resume")
    operate(shell, "ask", "POST", f"/tenants/{tenant.tenant_id}/provider/disable")
    parked = {"tenantId": tenant.tenant_id, "requestId": "parked", "message": MESSAGE}
    aws.enqueue_request(parked)
    aws.api.wait_for(tenant.tenant_id, "parked", lambda seen: seen["status"] == "deferred")
    erased = operate(shell, "erase", "request", tenant.tenant_id, "parked", "--cancel")
    assert "1  requests cancelled" in erased
    assert "1  provider" in operate(shell, "erase", "tenant", tenant.tenant_id)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_missing_right_is_reported(aws: LocalAws, env: dict[str, str], command: tuple[str, ...]) -> None:
    """With its name, and the page that has the policy."""
    see_stack = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}
    refused = run({**env, **user(aws, {"Version": "2012-10-17", "Statement": [see_stack]})}, *command)
    assert refused.returncode in (1, 2)
    said = (refused.stderr + refused.stdout).replace("\n", " ")
    assert "lack a right" in said
    assert "docs/deploy.md has the" in said
    assert "Traceback" not in said


def test_ask_takes_a_body(aws: LocalAws, tenant: Tenant, env: dict[str, str], tmp_path: Path) -> None:
    """From a file, from standard input, or as fields; invalid JSON is reported."""
    path = f"/tenants/{tenant.tenant_id}/messages"
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"requestId": "from-file", "message": MESSAGE}))
    operate(env, "ask", "POST", path, "--body", str(file))
    operate(env, "ask", "POST", path, "--body", "-", said=json.dumps({"requestId": "from-stdin", "message": MESSAGE}))
    for request_id in ("from-file", "from-stdin"):
        assert aws.api.wait_for(tenant.tenant_id, request_id)["status"] == "sent"
    refused = run(env, "ask", "POST", path, "--body", "-", said="{")
    assert (refused.returncode, refused.stderr.split(":")[0]) == (2, "- is not JSON")
    missing = run(env, "ask", "POST", path, "--body", str(tmp_path / "none"))
    assert (missing.returncode, "cannot be read" in " ".join(missing.stderr.split())) == (2, True)


def test_a_solved_problem_is_not_listed_any_more(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """A tenant whose mail is sent again, an unknown that was resolved."""
    lost, late = {"tenantId": tenant.tenant_id, "requestId": "lost", "message": MESSAGE}, {**MESSAGE, "subject": "late"}
    aws.control.inject("reset", operation="SendRawEmail", access_key=tenant.access_key, times=1)
    aws.enqueue_request(lost)
    assert aws.api.wait_for(tenant.tenant_id, "lost")["status"] == "unknown"
    operate(env, "ask", "POST", f"/tenants/{tenant.tenant_id}/provider/disable")
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "late", "message": late})
    aws.api.wait_for(tenant.tenant_id, "late", lambda seen: seen["status"] == "deferred")
    mine = [line for line in operate(env, "trouble") if tenant.tenant_id in line]
    assert sorted(line.split()[2] for line in mine) == ["deferred", "unknown"]
    operate(env, "ask", "POST", f"/tenants/{tenant.tenant_id}/messages/lost/resolve", "outcome=sent", "by=op", "why=seen")
    operate(env, "ask", "POST", f"/tenants/{tenant.tenant_id}/messages/late/cancel")
    assert [line for line in operate(env, "trouble") if tenant.tenant_id in line] == []


def hidden(aws: LocalAws) -> str:
    """Count the dead letters that are in flight."""
    name: Any = "ApproximateNumberOfMessagesNotVisible"
    answer = aws.client("sqs").get_queue_attributes(QueueUrl=aws.stack.outputs["DeadLetterQueueUrl"], AttributeNames=[name])
    return str(answer["Attributes"][name])


def test_ctrl_c_leaves_every_dead_letter_on_the_queue(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """It ends with the usual exit code and no traceback."""
    put_on_dead_letter_queue(aws, tenant, "seen-again")
    was = hidden(aws)
    command = [sys.executable, "-m", "mailer_ops.operate", "dlq", "redrive", "--tenant", "nobody"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while hidden(aws) == was:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (130, "\nstopped; run it again to go on\n")
    assert f"{tenant.tenant_id}  seen-again  moved_by_sqs" in operate(env, "dlq", "list", "--tenant", tenant.tenant_id)
    operate(env, "dlq", "drop", "--tenant", tenant.tenant_id)


def test_a_replay_requires_a_paused_intake(env: dict[str, str]) -> None:
    """Otherwise mail that is being sent would be treated as lost."""
    refused = run(env, "replay", "--since", "2026-11-24T08:00:00Z")
    assert refused.returncode == 2
    assert "`make pause` first" in refused.stderr


@pytest.mark.parametrize("target", ["dlq", "trouble", "ask", "pause", "resume", "erase", "mark", "replay", "help"])
def test_each_command_works_with_what_make_up_prints(env: dict[str, str], target: str) -> None:
    """And with nothing else; no line has escape codes or is wider than 80 columns."""
    variables = {"ask": ['DO=GET "/tenants/none/provider"'], "erase": ["DO=request none r1"], "replay": ["SINCE=2026-11-24T08:00:00Z"]}
    shell = {name: value for name, value in env.items() if name != "PYTHONPATH"}
    done = subprocess.run(["make", target, *variables.get(target, [])], cwd=ROOT, env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if target in ("ask", "replay") else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines()), default=0) <= 80


def test_a_pause_stops_the_intake_until_it_is_resumed(aws: LocalAws, tenant: Tenant, env: dict[str, str]) -> None:
    """The event source is disabled, then enabled again, and waiting mail goes out."""
    operate(env, "pause")
    try:
        assert states(aws) == {"Disabled"}
        assert intake_since(aws) is None
    finally:
        operate(env, "resume")
    assert states(aws) == {"Enabled"}
    since = intake_since(aws)
    assert since
    assert datetime.now(UTC) - since < timedelta(minutes=1)
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "later", "message": MESSAGE})
    assert aws.api.wait_for(tenant.tenant_id, "later")["status"] == "sent"


def intake_since(aws: LocalAws) -> datetime | None:
    """Return what the sweeper reads of it."""
    [source] = event_source(aws)
    return LambdaEventSource(aws.client("lambda"), source["UUID"]).running_since()


def states(aws: LocalAws) -> set[str]:
    return {source["State"] for source in event_source(aws)}


def event_source(aws: LocalAws) -> list[Any]:
    queue = aws.stack.outputs["SendQueueArn"]
    sources: list[Any] = aws.client("lambda").list_event_source_mappings(EventSourceArn=queue)["EventSourceMappings"]
    return sources


def test_the_queue_calls_the_live_alias(aws: LocalAws) -> None:
    """So a roll-back takes effect, and a pause is the same for every version."""
    functions = aws.client("lambda")
    [source] = event_source(aws)
    name, _, alias = source["FunctionArn"].rpartition(":")
    assert alias == "live"
    assert functions.get_alias(FunctionName=name, Name=alias)["FunctionVersion"].isdigit()

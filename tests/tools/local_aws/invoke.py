"""Run one built function as Lambda does, without Docker: under the AWS Runtime Interface Emulator, against the local AWS.

    make invoke FUNCTION=SendFunction EVENT=events/send.json

The function runs from the output of `sam build`, with its own environment, role and layer. The tenant of the event is created and verified
first if the local AWS does not have it. Prints the response, Lambda's report (with the duration of init), and the log.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console

from support.aws import tables
from tools.local_aws.proxy import HOST, reserve_port
from tools.local_aws.running import LocalAws, NotStartedError
from tools.local_aws.server import NO_OWN_SETUP, REGION, ROOT, endpoints
from tools.local_aws.stack import ARCHITECTURES, SamError, build
from tools.local_aws.terminal import console
from tools.local_aws.up import PORT, bring_up

PYTHON = ROOT / ".venv-runtime/bin/python"
EMULATORS = ROOT / ".venv-sam/lib/python3.13/site-packages/samcli/local/rapid"  # aws-sam-cli ships it
START = 10.0  # seconds
POLL = 0.02  # seconds; the emulator does not signal that it listens
EMULATOR_LINE = re.compile(r"\[\w+\] \(rapid\)|^(START|END|REPORT) RequestId")
INIT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)\)")  # the init time in the REPORT line is wrong
INVOKE = re.compile(r"INVOKE RTDONE\(.*duration: ([\d.]+)ms\)")


def environment(aws: LocalAws, function: str, task_root: Path) -> dict[str, str]:
    """Return the environment that Lambda gives a function: its variables, its role's credentials, its code and layer."""
    name = aws.stack.function_name(aws.addresses.aws, function)
    configured = aws.client("lambda").get_function_configuration(FunctionName=name)
    keys = aws.client("sts").assume_role(RoleArn=configured["Role"], RoleSessionName="invoke")["Credentials"]
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{task_root}{os.pathsep}{task_root.parent / 'Dependencies/python'}",
        "LAMBDA_TASK_ROOT": str(task_root),
        "_HANDLER": configured["Handler"],
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(configured["Timeout"]),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configured["MemorySize"]),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
        "AWS_ENDPOINT_URL": aws.addresses.aws,
        **endpoints(aws.addresses.services),
        **NO_OWN_SETUP,
        **configured["Environment"]["Variables"],
    }


@contextmanager
def emulated(variables: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run a function under the emulator until the block ends; yield the URL for invocations."""
    held = [reserve_port(), reserve_port()]
    address, runtime = (f"{HOST}:{port.getsockname()[1]}" for port in held)
    emulator = str(EMULATORS / f"aws-lambda-rie-{ARCHITECTURES[platform.machine().lower()]}")
    options = ["--runtime-interface-emulator-address", address, "--runtime-api-address", runtime, "--log-level", "info"]
    command = [emulator, *options, str(PYTHON), "-m", "awslambdaric", variables["_HANDLER"]]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=dict(variables), stdout=file, stderr=file, start_new_session=True) as process,
    ):
        try:
            yield f"http://{address}/2015-03-31/functions/function/invocations"
        finally:
            process.terminate()
            for port in held:
                port.close()


def invoke(url: str, event: bytes) -> Any:
    """Post an event as soon as the emulator listens; return the function's response."""
    pool, deadline = urllib3.PoolManager(retries=False), time.monotonic() + START
    while True:
        try:
            return json.loads(pool.request("POST", url, body=event, timeout=urllib3.Timeout(total=900)).data or b"null")
        except urllib3.exceptions.NewConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL)


def ensure_tenants(aws: LocalAws, event: Mapping[str, Any]) -> None:
    """Create and verify the tenants named in an event if they do not exist."""
    named = {(event.get("pathParameters") or {}).get("tenantId")}
    named |= {record.get("attributes", {}).get("MessageGroupId") for record in event.get("Records", [])}
    for tenant_id in filter(None, named):
        if aws.api.provider(tenant_id).status == 404:
            aws.active_tenant(tenant_id)


def report(console: Console, answer: Any, log: Path) -> None:
    text = log.read_text(errors="replace")
    console.rule("log", align="left")
    for line in text.splitlines():
        if not EMULATOR_LINE.search(line):
            console.print(line, markup=False, soft_wrap=True)
    console.rule("Lambda's report", align="left")
    init, took = INIT.search(text), INVOKE.search(text)
    console.print(
        f"init {float(init[1]):.0f} ms" if init else "init failed", f"invocation {float(took[1]):.0f} ms" if took else "", sep=", "
    )
    console.rule("answer", align="left")
    console.print_json(json.dumps(answer))


def functions() -> Sequence[str]:
    """Return the names of the template's functions."""
    return sorted(name for name, resource in tables.template()["Resources"].items() if resource["Type"] == "AWS::Serverless::Function")


def event_of(path: str) -> Mapping[str, Any]:
    """Read an event, for argparse."""
    try:
        event = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(event, dict):
        raise argparse.ArgumentTypeError(f"{path} is not a JSON object")
    return event


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="local_aws invoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("function", choices=functions())
    parser.add_argument("event", type=event_of)
    parser.add_argument("--port", type=int, default=PORT)
    given = parser.parse_args(arguments)
    screen = console()
    if sys.platform != "linux":
        screen.print("AWS's emulator runs on Linux only; with Docker: sam local invoke", style="red")
        return 1
    try:
        aws = bring_up(screen, given.port)
    except (SamError, NotStartedError) as error:
        screen.print(str(error), style="red", markup=False)
        return 1
    ensure_tenants(aws, given.event)
    log = aws.directory / "invoke.log"
    with emulated(environment(aws, given.function, build().parent / given.function), log) as url:
        answer = invoke(url, json.dumps(given.event).encode())
    report(screen, answer, log)
    return 1 if isinstance(answer, dict) and "errorType" in answer else 0

"""Every command of the runbook, unchanged, on the local AWS."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest

from mailer import wiring
from mailer.settings import settings
from mailer_ops import operate, stack
from support.aws import tables
from tools.local_aws.running import LocalAws
from tools.local_aws.server import NO_OWN_SETUP, PLATFORM
from tools.local_aws.tenants import Tenant

RUNBOOK = (tables.ROOT / "docs/runbook.md").read_text()
MESSAGE = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hi"}
TOO_EARLY = "outcome=resend"
"""The error while the worker may still be alive: it has the time from which the command works."""


@dataclass(frozen=True)
class Command:
    """A command of the runbook."""

    text: str

    def arguments(self, tenant: Tenant) -> list[str]:
        """Return the arguments of the operators' program, for a tenant of this test."""
        target, *variables = shlex.split(self.text)[1:]
        recipe = subprocess.run(["make", "-n", target, *variables], cwd=tables.ROOT, capture_output=True, text=True, check=True).stdout
        [line] = [line for line in recipe.splitlines() if "mailer_ops.operate" in line]
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        assert list(words) == shlex.split(line), "the shell would end the command before its end"
        return [word.replace("acme", tenant.tenant_id) for word in shlex.split(line)[3:]]


def commands() -> list[Command]:
    """Return the distinct commands of the runbook, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", RUNBOOK, re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [Command(line) for line in dict.fromkeys(lines) if line]


@pytest.fixture
def shell(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set an operator's environment, with the local API's own URL. The program runs in this process, so that it is started once."""
    for name, value in {**PLATFORM, **NO_OWN_SETUP, **dict.fromkeys(stack.OUTPUTS.values(), "")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.addresses.aws)
    monkeypatch.setenv("TENANTMAIL_API", aws.stack.api_url)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it would have the first user's credentials
    forget_caches()
    yield
    forget_caches()


def forget_caches() -> None:
    """Clear the process's caches."""
    settings.cache_clear()
    for built in vars(wiring).values():
        if hasattr(built, "cache_clear"):
            built.cache_clear()


def make_unknown(aws: LocalAws, tenant: Tenant, request_id: str) -> None:
    """Make a request whose acceptance by SES is unknown."""
    aws.control.inject("reset", operation="SendRawEmail", access_key=tenant.access_key, times=1)
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": request_id, "message": MESSAGE})
    assert aws.api.wait_for(tenant.tenant_id, request_id)["status"] == "unknown"


@pytest.mark.usefixtures("shell")
def test_every_command_of_the_runbook_works(aws: LocalAws, tenant: Tenant, capsys: pytest.CaptureFixture[str]) -> None:
    """In their order, for a tenant with problems."""
    for request_id in ("invoice-2026-0001", "invoice-2026-0002"):
        make_unknown(aws, tenant, request_id)
    said: dict[str, str] = {}
    for command in commands():
        code = operate.main(command.arguments(tenant))
        said[command.text] = capsys.readouterr().out
        assert code == (1 if TOO_EARLY in command.text else 0), (command.text, said[command.text])
    assert len(said) > 10
    assert f"2  {tenant.tenant_id}  unknown  outcome_unknown\n    Operator: SES may have accepted it" in said["make trouble"]
    [first] = [json.loads(text) for command, text in said.items() if 'messages/invoice-2026-0001"' in command]
    assert first["status"] == "unknown"
    [too_early] = [text for command, text in said.items() if TOO_EARLY in command]
    assert "not_resolvable" in too_early
    assert aws.api.status(tenant.tenant_id, "invoice-2026-0001").body["status"] == "sent"
    assert aws.api.provider(tenant.tenant_id).body["status"] == "active"

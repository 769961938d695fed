"""The operators' commands in an environment that is not set up for them: one sentence says what to do, before any call."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mailer import wiring
from mailer_client import ApiError
from mailer_client.models import ProblemDocument
from mailer_ops import operate, stack
from mailer_ops.operate import UNREAD, main

OUTPUTS = [{"OutputKey": name, "OutputValue": "https://api.example/v1" if name == "ApiUrl" else name} for name in stack.OUTPUTS]


class CloudFormation:
    """A stack with all outputs."""

    def describe_stacks(self, **_: str) -> dict[str, Any]:
        return {"Stacks": [{"Outputs": OUTPUTS}]}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use credentials of nobody; what the commands set in the environment is removed after the test."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    for name in (*stack.OUTPUTS.values(), "PRODUCER_TENANTS", "TENANTMAIL_API"):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4566", "http://127.0.0.1:99999", "http://[::1"])
def test_an_endpoint_that_is_no_address_is_reported(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The SDK raises a ValueError for it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert main(["trouble"]) == 2
    said = capsys.readouterr().err
    assert "AWS_ENDPOINT_URL must be an address such as http://127.0.0.1:4566, or unset." in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    "url", ["mail.example.com/v1", "ftp://mail.example.com", "https://", "https://mail.example.com:99999/v1", "https://["]
)
def test_an_api_that_is_no_address_is_reported(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No request can be signed for it."""
    monkeypatch.setattr(stack, "client", lambda _: CloudFormation())
    monkeypatch.setenv("TENANTMAIL_API", url)
    assert main(["ask", "GET", "/tenants"]) == 2
    assert "TENANTMAIL_API must be an address such as" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:4566/_aws/execute-api/abc/v1", "https://mail.example.com"])
def test_the_api_is_the_stack_s_or_the_named_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable names none."""
    monkeypatch.setattr(stack, "client", lambda _: CloudFormation())
    monkeypatch.setenv("TENANTMAIL_API", url)
    stack.use_stack("tenantmail")
    assert os.environ["API_URL"] == (url or "https://api.example/v1")


@pytest.mark.parametrize("characters", [1, 1_000_000], ids=["buffered", "written"])
def test_a_reader_that_has_ended_is_no_error(characters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make trouble | head -1` leaves no traceback, also not at the end of the process."""
    reading, writing = os.pipe()
    os.close(reading)

    def print_much(_: argparse.Namespace) -> int:
        operate._print("x" * characters)
        return 0

    monkeypatch.setattr(operate, "use_stack", lambda _: None)
    monkeypatch.setattr(operate, "_trouble", print_much)
    with os.fdopen(writing, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert main(["trouble"]) == UNREAD
        unread.flush()


def test_a_log_that_is_no_text_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as a compressed export."""
    log = tmp_path / "lines.json.gz"
    log.write_bytes(b"\x1f\x8b\x08\x00\xff")
    monkeypatch.setattr(operate, "use_stack", lambda _: None)
    monkeypatch.setattr(operate, "_event_source", lambda: {"State": "Disabled"})
    for name in ("dynamodb", "messages_table", "parked_bodies"):
        monkeypatch.setattr(wiring, name, lambda: None)
    assert main(["replay", "--since", "2026-11-24T08:00:00Z", str(log)]) == 2
    assert "cannot be read: it is not text in UTF-8." in " ".join(capsys.readouterr().err.split())


def test_a_path_that_is_refused_is_reported_with_both_reasons(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """API Gateway answers 403 also where there is no such route; what it says is shown."""
    said = ProblemDocument(
        type="about:blank", title="Forbidden", status=403, code="access_denied", detail="or there is no such route", hint="", errors=[]
    )

    def refuse(*_: object) -> None:
        raise ApiError(403, said)

    monkeypatch.setattr(stack, "client", lambda _: CloudFormation())
    monkeypatch.setattr(operate.Connection, "call", refuse)
    assert main(["ask", "GET", "/tenant/acme"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "or there is no such route There is no such path, or these credentials lack a right, execute-api:Invoke" in shown


@pytest.mark.parametrize("has_problem", [True, False])
def test_a_refusal_is_shown_with_its_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, has_problem: bool
) -> None:
    """Who must do what, if it is the API's own."""
    said = ProblemDocument(
        type="about:blank", title="Conflict", status=409, code="not_resolvable", detail="no", hint="Operator: ask later.", errors=[]
    )

    def refuse(*_: object) -> None:
        raise ApiError(409, said if has_problem else None)

    monkeypatch.setattr(stack, "client", lambda _: CloudFormation())
    monkeypatch.setattr(operate.Connection, "call", refuse)
    assert main(["ask", "POST", "/tenants/acme/messages/r1/resolve"]) == 1
    refusal, *hint = capsys.readouterr().out.splitlines()
    assert refusal.startswith("409")
    assert hint == (["Operator: ask later."] if has_problem else [])

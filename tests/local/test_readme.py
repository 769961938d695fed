"""The README's samples, unchanged, on the local AWS."""

import json
import os
import re
import subprocess
import sys
import textwrap
from email import message_from_bytes, policy
from typing import Any

import pytest

from tools.local_aws.running import LocalAws
from tools.local_aws.server import NO_OWN_SETUP, ROOT
from tools.local_aws.up import exports, set_up_tenant

README = (ROOT / "README.md").read_text(encoding="utf-8")


def samples(language: str, text: str = README) -> list[str]:
    """Return the blocks of a language, in order."""
    return [textwrap.dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)]


@pytest.fixture(scope="module")
def acme(running_aws: LocalAws) -> LocalAws:
    """Return the local AWS after `make up` and `make tenant NAME=acme`."""
    set_up_tenant(running_aws, "acme")
    return running_aws


def run(aws: LocalAws, sample: str) -> str:
    shell = {"PATH": os.environ["PATH"], "PYTHONPATH": "src", **NO_OWN_SETUP, **exports(aws)}
    done = subprocess.run([sys.executable, "-c", sample], cwd=ROOT, env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_request_gives_the_record(acme: LocalAws) -> None:
    """Through SQS and the API: the record has exactly the fields shown, the mail its attachment."""
    request, record, *_ = [json.loads(sample) for sample in samples("json")]
    acme.enqueue_request(request)
    answer = acme.api.submit("acme", request)
    assert answer.status == 202, answer.body
    sent = acme.api.wait_for("acme", request["requestId"])
    assert sent.keys() == record.keys()
    shown = ("tenantId", "requestId", "status", "provider", "attempts", "recipients", "error")
    assert {name: sent[name] for name in shown} == {name: record[name] for name in shown}
    [mail] = acme.control.mails(message_id=sent["messageId"])
    [attached] = message_from_bytes(mail.raw, policy=policy.default).iter_attachments()
    assert (attached.get_filename(), attached.get_content()[:5]) == ("invoice.pdf", b"%PDF-")


def test_every_python_sample_runs(acme: LocalAws) -> None:
    """And sends what the README says."""
    from_sqs, from_api, lists = samples("python")
    assert run(acme, from_sqs) == ""
    assert run(acme, from_api) == "sent\n"
    listed, command, bounced = run(acme, lists).splitlines()
    assert listed == "['sam@example.com']"
    assert "--email-address=sam@example.com" in command
    assert bounced == "0 bounced today"
    for sample in (from_sqs, from_api):
        [request_id] = re.findall(r'"requestId": "([^"]+)"', sample)
        assert acme.api.wait_for("acme", request_id)["status"] == "sent"


def test_every_api_call_is_accepted(acme: LocalAws) -> None:
    """With a tenant of its own, because the config that it stores cannot send."""
    calls = samples("http")
    assert calls
    for call in calls:
        method, path, body = re.match(r"(\w+) /v1(\S+)\n(.*)", call, re.DOTALL).groups()  # type: ignore[union-attr]
        answer = acme.api.call(method, path.replace("/acme/", "/from-the-readme/"), json.loads(body))
        assert answer.status == 200, answer.body


def test_every_json_sample_is_json() -> None:
    """None has dots in place of content."""
    documents: list[Any] = [json.loads(sample) for sample in samples("json")]
    assert len(documents) >= 3
    assert "…" not in json.dumps(documents[0], ensure_ascii=False)

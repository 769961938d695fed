"""The provider API as API Gateway calls it, over the stack in moto."""

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from botocore.exceptions import ClientError

from mailer import wiring
from mailer.domain.errors import ErrorInfo
from mailer.domain.events import provider_changed
from mailer.domain.lifecycle import SANDBOX_MAY_BE
from mailer.domain.provider import Provider, parse_config
from mailer.domain.statistics import Bucket, Counts, floor
from mailer.handlers.providers import handler
from mailer.observability import logger
from mailer.ports import Counted
from mailer.services.providers import providers as service
from support.aws.api_calls import Answer, call, event

FROM, SES_REGION = "billing@acme.example", "eu-west-1"
KEY = json.loads(event("provider-put")["body"])


@pytest.fixture(autouse=True)
def stack(aws: Mapping[str, str]) -> Mapping[str, str]:
    """Tenants' SES lives in moto too, with the from-address verified."""
    boto3.client("ses", region_name=SES_REGION).verify_email_identity(EmailAddress=FROM)
    return aws


def ask(name: str, **changes: Any) -> Answer:
    return call(handler, event(f"provider-{name}"), **changes)


def put(**config: Any) -> Answer:
    """Store the access key of `events/provider-put.json` with other fields; None takes one away."""
    changed = {name: value for name, value in {**KEY["config"], **config}.items() if value is not None}
    return ask("put", body={**KEY, "config": changed})


def row(tenant: str = "acme") -> Provider:
    found = wiring.providers_table().get(tenant)
    assert found is not None
    return found


def problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is an RFC 9457 problem, and return it."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = answer.json
    assert (answer.status, document["status"], document["code"]) == (status, status, code)
    assert {"type", "title", "detail", "hint", "errors"} < document.keys()
    return document


# -- feedback ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, "", {}, {"simulate": False}])
def test_a_verify_that_asks_for_no_simulation_sends_one_mail(body: Any) -> None:
    """No body, as before there was one, and one that says so."""
    put(configurationSet=None)
    verified = ask("verify", body=body)
    assert (verified.status, verified.json["simulated"]) == (200, None)
    record = ask("get").json
    assert (record["feedback"], record["lastFeedbackAt"], record["simulation"]) == ("off", None, None)
    assert record["feedbackHint"].startswith("Tenant: ")


def test_a_simulation_mails_the_simulator_and_is_shown() -> None:
    """The answer has an id of each mail; the record waits for what comes back."""
    boto3.client("ses", region_name=SES_REGION).create_configuration_set(ConfigurationSet={"Name": "mail-acme"})
    put(configurationSet="mail-acme")
    assert ask("get").json["feedbackHint"].startswith("Caller: verify")
    simulated = ask("verify", body={"simulate": True}).json["simulated"]
    assert all(mail["messageId"] and mail["error"] is None for mail in simulated.values())
    record = ask("get").json
    assert record["feedback"] == "unproven"
    assert record["simulation"]["startedAt"]
    assert (record["simulation"]["bounceReportedAt"], record["simulation"]["complaintReportedAt"]) == (None, None)


@pytest.mark.parametrize(
    ("body", "path"), [('{"simulate": "yes"}', "simulate"), ('{"simulated": true}', "simulated"), ("[]", ""), ("{", ""), ("null", "")]
)
def test_a_verify_with_a_faulty_body_sends_nothing(body: str, path: str) -> None:
    """Each fault is named, and the config stays what it was."""
    put()
    refusal = problem(ask("verify", body=body), 400, "invalid_request")
    assert [fault["path"] for fault in refusal["errors"]] == [path]
    assert ask("get").json["status"] == "unverified"


def test_nothing_is_simulated_for_a_config_of_which_ses_reports_nothing() -> None:
    """Without a configuration set nothing would come back: the caller is told before a mail goes out."""
    put(configurationSet=None)
    refusal = problem(ask("verify", body={"simulate": True}), 400, "invalid_request")
    assert refusal["errors"][0]["path"] == "simulate"
    assert ask("get").json["status"] == "unverified"


# -- the life of a provider ----------------------------------------------------------------------------------------------


def test_stores_shows_verifies_and_rotates(stack: Mapping[str, str]) -> None:
    """From nothing to an active key, and on to the next one, without a moment in which there is none."""
    problem(ask("get"), 404, "not_found")

    stored = put().json
    assert (stored["status"], stored["version"], stored["credentials"]) == (
        "unverified",
        1,
        {"type": "accessKey", "accessKeyId": "…MPLE"},
    )
    assert ask("get").json == stored

    verified = ask("verify")
    assert verified.status == 200
    assert verified.json.keys() == {"messageId", "sandbox", "warnings", "status", "version", "simulated"}
    assert SANDBOX_MAY_BE in verified.json["warnings"]
    assert (verified.json["status"], verified.json["version"]) == ("active", 1)

    beside = put(fromName="Acme, anew").json
    assert (beside["status"], beside["version"], beside["fromName"]) == ("active", 1, "Acme Billing")
    assert (beside["candidate"]["version"], beside["candidate"]["fromName"]) == (2, "Acme, anew")

    assert SANDBOX_MAY_BE not in ask("verify").json["warnings"]
    rotated = ask("get").json
    assert (rotated["version"], rotated["fromName"], rotated["candidate"]) == (2, "Acme, anew", None)
    assert json.dumps(KEY["config"]["secretAccessKey"]) not in json.dumps(
        boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"]), default=repr
    )


def test_a_verify_that_fails_leaves_the_active_key() -> None:
    """The new config's from-address is not verified: 422 with the region and page; mail goes on with the old one."""
    put()
    ask("verify")
    put(fromAddress="nobody@unverified.example", region="eu-central-1")
    refusal = problem(ask("verify"), 422, "from_address_not_verified")
    assert "eu-central-1" in refusal["hint"]
    shown = ask("get").json
    assert (shown["status"], shown["version"], shown["fromAddress"], shown["error"]) == ("active", 1, FROM, None)
    assert shown["candidate"]["error"]["hint"] == refusal["hint"]


def test_disable_enable_and_delete() -> None:
    """Each answers the record it left; after DELETE there is none, and the version goes on."""
    put()
    problem(ask("enable"), 409, "provider_not_active")
    ask("verify")
    assert ask("disable").json["status"] == "disabled"
    assert ask("verify").json["status"] == "disabled"
    assert ask("enable").json["status"] == "active"
    for _ in range(2):
        gone = ask("delete")
        assert (gone.status, gone.text) == (204, "")
    for name in ("get", "verify", "disable", "enable"):
        problem(ask(name), 404, "not_found")
    assert put().json["version"] == 2


def test_a_provider_whose_reputation_is_at_risk_is_resumed_with_a_reason() -> None:
    """Neither `verify` nor `enable` alone does it; who and why stand on the record, with who called."""
    put()
    ask("verify")
    assert wiring.providers_table().suspend_at_risk("acme", ErrorInfo("reputation_at_risk", "30 bounces of 200"), row())
    assert ask("verify").json["status"] == "suspended"
    refusal = problem(ask("enable"), 409, "provider_not_active")
    assert "{by, why}" in refusal["detail"]
    shown = ask("get").json
    assert (shown["status"], shown["error"]["code"]) == ("suspended", "reputation_at_risk")
    assert "resumption" not in shown
    resumed = ask("enable", body={"by": "sam", "why": "the bought list is gone"}).json
    assert (resumed["status"], resumed["error"]) == ("active", None)
    word = resumed["resumption"]
    assert (word["by"], word["why"]) == ("sam", "the bought list is gone")
    assert word["principal"] == event("provider-enable")["requestContext"]["identity"]["userArn"]


def test_a_resumption_keeps_what_was_counted_by_then() -> None:
    """The guard judges what comes after it, in the same hour too."""
    put()
    ask("verify")
    assert wiring.providers_table().suspend_at_risk("acme", ErrorInfo("reputation_at_risk", "30 bounces of 200"), row())
    hour = floor(wiring.clock().now())
    counts = {hour + number * timedelta(hours=1): Counts(sent=200, bounced=30 + number) for number in (-1, 0, 1)}  # the clock may pass one
    for of_one, number in counts.items():
        wiring.statistics_table().add(Bucket("acme", of_one), "s", [Counted("1", number)])
    answer = ask("enable", body={"by": "sam", "why": "the bought list is gone"})
    assert "answered" not in answer.json["resumption"]
    resumption = row().resumption
    assert resumption is not None
    assert resumption.answered == counts[floor(resumption.at)]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"by": "sam"}, ""),
        ({"why": "mended"}, ""),
        ({"by": "", "why": "x"}, "by"),
        ({"by": "a", "why": "b\n"}, "why"),
        ({"who": "sam"}, "who"),
    ],
)
def test_a_reason_is_given_whole_or_not_at_all(body: Any, path: str) -> None:
    """400, and nothing changes."""
    put()
    ask("verify")
    ask("disable")
    refusal = problem(ask("enable", body=body), 400, "invalid_request")
    assert path in [fault["path"] for fault in refusal["errors"]]
    assert ask("get").json["status"] == "disabled"


def test_what_is_stored_opens_as_it_was_given() -> None:
    """The ciphertext is bound to this tenant and version, and holds the very config."""
    put()
    candidate = row().candidate
    assert candidate is not None
    plaintext = wiring.config_cipher().decrypt("acme", "ses", 1, candidate.ciphertext)
    assert json.loads(plaintext) == KEY["config"]
    assert parse_config("ses", plaintext).from_address == FROM


def test_ciphertext_is_gone_after_promotion_and_after_delete(stack: Mapping[str, str]) -> None:
    """The old key's ciphertext is in no attribute of the row once the new one is active, nor any once it is deleted."""
    put()
    ask("verify")
    old = row().active
    put(fromName="New")
    ask("verify")
    new = row().active
    assert old is not None
    assert new is not None
    assert set(ciphertexts(stack)) == {new.ciphertext, row().encrypted_external_id}
    assert old.ciphertext != new.ciphertext
    ask("delete")
    assert ciphertexts(stack) == [row().encrypted_external_id]


def test_an_external_id_that_cannot_be_opened_is_told(stack: Mapping[str, str]) -> None:
    """422 on the routes that need it: a role cannot be stored, an access key can."""
    ask("onboarding")
    boto3.client("dynamodb").update_item(
        TableName=stack["PROVIDERS_TABLE"],
        Key={"tenantId": {"S": "acme"}},
        UpdateExpression="SET encryptedExternalId = :damaged",
        ExpressionAttributeValues={":damaged": {"B": row().encrypted_external_id[:-1]}},
    )
    problem(ask("onboarding"), 422, "config_unreadable")
    problem(ask("put-role"), 422, "config_unreadable")
    assert put().status == 200


def ciphertexts(stack: Mapping[str, str]) -> list[bytes]:
    """Every binary value in the table, however deep."""

    def binaries(node: Any) -> Iterator[bytes]:
        if isinstance(node, dict):
            for value in node.values():
                yield from binaries(value)
        elif isinstance(node, bytes):
            yield node

    items = boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"])["Items"]
    return [value for item in items for value in binaries(item)]


def test_rows_swapped_between_tenants_do_not_open(stack: Mapping[str, str]) -> None:
    """Who can write the table still cannot send as another tenant: its config does not open under their name."""
    put()
    body = json.dumps({**KEY, "config": {**KEY["config"], "fromName": "Evil"}})
    ask("put", tenant="evil", body=body)
    client, name = boto3.client("dynamodb"), stack["PROVIDERS_TABLE"]
    stolen = client.get_item(TableName=name, Key={"tenantId": {"S": "acme"}})["Item"]
    client.put_item(TableName=name, Item={**stolen, "tenantId": {"S": "evil"}})
    problem(ask("verify", tenant="evil"), 422, "config_unreadable")


def test_a_suspended_provider_shows_why_and_what_to_do() -> None:
    """The record has the error that suspended it with the statement for this very config; a verify lifts it."""
    put()
    ask("verify")
    for request in ("r1", "r2", "r3"):
        wiring.providers_table().record_fault("acme", 1, request, ErrorInfo("credentials_denied", "AWS denied ses:SendRawEmail"))
    shown = ask("get").json
    assert (shown["status"], shown["error"]["code"], shown["error"]["retryable"]) == ("suspended", "credentials_denied", True)
    hint = shown["error"]["hint"]
    statement = json.loads(hint[hint.index("{") :])
    assert f"arn:aws:ses:{SES_REGION}:123456789012:configuration-set/transactional" in statement["Resource"]
    problem(ask("enable"), 409, "provider_not_active")
    ask("verify")
    assert (ask("get").json["status"], ask("get").json["error"]) == ("active", None)


def test_smtp_depends_on_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with a clear text where the template does not allow it, taken where it does."""
    refusal = problem(ask("put-smtp"), 400, "invalid_request")
    assert "AllowSmtp" in refusal["detail"]
    monkeypatch.setenv("ALLOW_SMTP", "true")
    wiring.settings.cache_clear()
    wiring.provider_dependencies.cache_clear()
    stored = ask("put-smtp").json
    assert (stored["provider"], stored["credentials"], stored["region"]) == ("smtp", {"type": "smtp", "host": "localhost:1025"}, None)


# -- what cannot be ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["get", "put", "delete", "verify", "onboarding"])
def test_what_is_no_tenant_id_is_not_found(stack: Mapping[str, str], name: str) -> None:
    """Whatever stands in the path, it is a 404 and nothing is stored."""
    for tenant in ("a" * 65, "-acme", "..", "ac%2Fme", "acme.example", "ä"):
        problem(ask(name, tenant=tenant), 404, "not_found")
    assert boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"])["Count"] == 0


def test_no_body_is_worse_than_a_400() -> None:
    """Every fault is named, and nothing that a caller sends is a 5xx."""
    bodies = [
        "",
        "null",
        "[]",
        "{",
        '"x"',
        "{}",
        '{"provider": "ses"}',
        '{"provider": "ses", "config": {"accessKeyId": {}}}',
        "\ud800",
        "[" * 9000,
    ]
    for body in bodies:
        assert problem(ask("put", body=body), 400, "invalid_request")["errors"]


def test_names_faults_by_path() -> None:
    """A form can show each fault at its field."""
    refusal = problem(put(region="mars", accessKeyId=None, color="blue"), 400, "invalid_request")
    assert {fault["path"] for fault in refusal["errors"]} == {"config.region", "config.accessKeyId", "config.color"}


def test_too_large_is_a_400() -> None:
    """A config has a few hundred characters."""
    problem(ask("put", body=" " * (service.MAX_BODY + 1)), 400, "invalid_request")


def test_no_answer_may_be_kept_on_the_way() -> None:
    """Neither a record nor a refusal: they name accounts, and onboarding the ExternalId."""
    put()
    answers = [ask(name) for name in ("get", "onboarding", "verify", "enable", "delete", "get")]
    answers += [put(region="mars"), ask("get", tenant="..")]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
    assert {answer.status for answer in answers} == {200, 204, 400, 404}


def test_other_routes_are_not_found() -> None:
    """Also as problem+json."""
    for method, path in (("PATCH", "/tenants/acme/provider"), ("GET", "/tenants/acme/provider/verify"), ("GET", "/x")):
        problem(call(handler, {**event("provider-get"), "httpMethod": method, "path": path}), 404, "not_found")


def test_an_outage_of_ours_is_a_503() -> None:
    """With DynamoDB down each route says when to come again."""
    down = ClientError({"Error": {"Code": "InternalServerError"}}, "x")
    with patch.object(wiring.dynamodb(), "get_item", side_effect=down):
        for name in ("put", "get", "verify", "disable", "enable", "delete", "onboarding"):
            answer = ask(name)
            problem(answer, 503, "dependency_unavailable")
            assert int(answer.headers["Retry-After"]) > 0


def test_a_kms_outage_is_a_503() -> None:
    """Nothing is stored that was not sealed."""
    down = ClientError({"Error": {"Code": "ThrottlingException"}}, "GenerateDataKey")
    wiring.provider_dependencies()
    with patch.object(wiring.kms(), "generate_data_key", side_effect=down):
        problem(put(), 503, "dependency_unavailable")
    problem(ask("get"), 404, "not_found")


# -- who did it ----------------------------------------------------------------------------------------------------------


def changes_logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == "provider changed"]


def test_each_change_names_whose_call_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """Row, record, log line and event have the identity that API Gateway has authenticated."""
    changes = ["put", "verify", "disable", "enable", "put", "delete"]
    told = []
    for number, name in enumerate(changes):
        arn = f"arn:aws:sts::123456789012:assumed-role/platform/{number}"
        before = wiring.providers_table().get("acme")
        asked = event(f"provider-{name}")
        asked["requestContext"]["identity"]["userArn"] = arn
        answer = call(handler, asked)
        assert answer.status in (200, 204)
        assert row().updated_by == arn
        if name != "verify" and answer.text:
            assert answer.json["updatedBy"] == arn
        change = provider_changed("e", before, row())
        assert change is not None
        told.append((change.detail["change"], change.detail["principal"]))
    logged = [(line["change"], line["principal"]) for line in changes_logged(caplog)]
    assert logged == told
    assert [change for change, _ in told] == ["stored", "verified", "disabled", "enabled", "stored", "deleted"]
    assert [arn[-1] for _, arn in told] == list("012345")


def test_a_verify_that_fails_names_whose_call_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """Also what changed nothing but the error is written down with its caller."""
    put(fromAddress="nobody@unverified.example")
    problem(ask("verify"), 422, "from_address_not_verified")
    [_, failed] = changes_logged(caplog)
    assert (failed["change"], failed["code"]) == ("verifyFailed", "from_address_not_verified")
    assert failed["principal"] == row().updated_by == event("provider-verify")["requestContext"]["identity"]["userArn"]


@pytest.mark.parametrize(
    ("identity", "known"),
    [
        ({}, None),
        (None, None),
        ({"userArn": None}, None),
        ({"userArn": 7}, None),
        ({"userArn": "arn:aws:iam::1:user/a\nb\u2028{}"}, "arn:aws:iam::1:user/a?b?{}"),
        ({"userArn": "x" * 5000}, "x" * 700),
    ],
)
def test_what_names_nobody_is_no_error(identity: Any, known: str | None) -> None:
    """A direct invocation has no identity; what stands in its place is cut, and has no character that breaks a line."""
    asked = event("provider-put")
    asked["requestContext"]["identity"] = identity
    assert call(handler, asked).status == 200
    assert row().updated_by == known


# -- leaks ---------------------------------------------------------------------------------------------------------------

CANARIES = {"secretAccessKey": "canary/SECRET/key+0123456789abcdefghijkl", "accessKeyId": "AKIACANARYCANARYWXYZ"}
PASSWORD = "canary-PASSWORD-of-smtp"
MARKS = ("canary", "AKIACANARY", PASSWORD)


class Everything(logging.Handler):
    """Keeps what any logger writes, with tracebacks and extra fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(f"{record.name} {self.format(record)} {vars(record)}")


@pytest.fixture
def log() -> Iterator[Everything]:
    """Turn on every logger there is, at DEBUG."""
    listener = Everything()
    loggers = [
        logging.getLogger(),
        logger()._logger,
        *[known for known in logging.Logger.manager.loggerDict.values() if isinstance(known, logging.Logger)],
    ]
    before = [(known, known.level) for known in loggers]
    for known in loggers:
        known.setLevel(logging.DEBUG)
        if known is logging.getLogger() or not known.propagate:
            known.addHandler(listener)
    yield listener
    for known, level in before:
        known.setLevel(level)
        known.removeHandler(listener)


def canaried(name: str = "put", **changes: Any) -> dict[str, Any]:
    """A PUT whose secrets are canaries."""
    body = json.loads(event(f"provider-{name}")["body"])
    secrets = {"username": "u", "password": PASSWORD} if body["provider"] == "smtp" else CANARIES
    return {**body, "config": {**body["config"], **secrets, **changes}}


def test_no_secret_leaves_the_vault(
    stack: Mapping[str, str], log: Everything, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Canary secrets through every route, every refusal and every failure, all loggers at DEBUG: none is anywhere but in ciphertext."""
    monkeypatch.setenv("ALLOW_SMTP", "true")
    wiring.settings.cache_clear()
    bodies: list[Any] = [
        canaried(),
        canaried(region="mars"),
        canaried(secretAccessKey=[CANARIES["secretAccessKey"]]),
        canaried(secretAccessKey=CANARIES["secretAccessKey"] + "\n"),
        canaried(accessKeyId=CANARIES["accessKeyId"] + " "),
        canaried(secretKey=CANARIES["secretAccessKey"]),
        canaried(**{CANARIES["secretAccessKey"]: 1}),
        canaried(maxSendRate=CANARIES["secretAccessKey"]),
        {**canaried(), "provider": CANARIES["secretAccessKey"]},
        json.dumps(canaried())[:-9],
        json.dumps(canaried())[1:],
        canaried("put-smtp"),
        canaried("put-smtp", password=PASSWORD + "\r\n"),
        canaried(),
    ]
    answers = [ask("put", body=body) for body in bodies]
    answers += [ask(name) for name in ("get", "verify", "get", "onboarding", "disable", "enable")]
    assert {answer.status for answer in answers} == {200, 400}

    failures = [
        patch.object(wiring.kms(), "generate_data_key", side_effect=ClientError({"Error": {"Code": "ThrottlingException"}}, "x")),
        patch.object(wiring.dynamodb(), "put_item", side_effect=ClientError({"Error": {"Code": "ThrottlingException"}}, "x")),
        patch.object(service, "parse_put", side_effect=RuntimeError(f"a bug with {CANARIES['secretAccessKey']} in its text")),
    ]
    for failure in failures:
        with failure:
            answers.append(ask("put", body=canaried()))
    ask("put", body=canaried(fromAddress="nobody@unverified.example"))
    answers += [ask("verify"), ask("get"), ask("delete")]
    assert {answer.status for answer in answers} == {200, 204, 400, 422, 500, 503}

    table = repr(boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"]))
    shown = {
        "answers": "".join(f"{a.headers}{a.text}" for a in answers),
        "logs": "".join(log.written),
        "output": "".join(capsys.readouterr()),
        "table": table,
    }
    assert log.written
    leaks = {place: mark for place, text in shown.items() for mark in MARKS if mark in text}
    assert leaks == {}


def test_a_role_is_named_in_answers_alone(stack: Mapping[str, str], log: Everything, capsys: pytest.CaptureFixture[str]) -> None:
    """ARN and ExternalId come back from PUT, GET and a failing verify; table, logs and output hold neither, nor what would lead to them."""
    role, external_id = "arn:aws:iam::222222222222:role/canary-role", "canary-external-id"
    denied = ClientError(
        {"Error": {"Code": "AccessDenied", "Message": f"not authorized to assume {role} with {external_id}"}}, "AssumeRole"
    )
    body = json.loads(event("provider-put-role")["body"])
    with (
        patch.object(wiring.secrets, "token_urlsafe", return_value=external_id),
        patch.object(wiring.sts(), "assume_role", side_effect=denied),
    ):
        stored = ask("put", body={**body, "config": {**body["config"], "roleArn": role}})
        refusal = problem(ask("verify"), 422, "role_not_assumable")
        shown = ask("get").json
        assert ask("disable").status == 200
    assert stored.json["credentials"] == shown["credentials"] == {"type": "role", "roleArn": role, "externalId": external_id}
    assert role in refusal["hint"]
    assert external_id in refusal["hint"]
    assert shown["error"]["hint"] == refusal["hint"]
    assert "canary" not in refusal["detail"]
    table = repr(boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"]))
    assert "canary" not in f"{table} {log.written} {capsys.readouterr()}"
    assert ask("delete").status == 204
    assert ask("onboarding").json["externalId"] == external_id

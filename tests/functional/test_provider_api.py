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
    """Tenants' SES is in moto too, with a verified from-address."""
    boto3.client("ses", region_name=SES_REGION).verify_email_identity(EmailAddress=FROM)
    return aws


def ask(name: str, **changes: Any) -> Answer:
    return call(handler, event(f"provider-{name}"), **changes)


def put(**config: Any) -> Answer:
    """Store the access key of `events/provider-put.json` with other fields; None removes one."""
    changed = {name: value for name, value in {**KEY["config"], **config}.items() if value is not None}
    return ask("put", body={**KEY, "config": changed})


def row(tenant: str = "acme") -> Provider:
    found = wiring.providers_table().get(tenant)
    assert found is not None
    return found


def problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Check that a response is an RFC 9457 problem, and return it."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = answer.json
    assert (answer.status, document["status"], document["code"]) == (status, status, code)
    assert {"type", "title", "detail", "hint", "errors"} < document.keys()
    return document


# -- feedback ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, "", {}, {"simulate": False}])
def test_a_verify_without_simulation_sends_one_mail(body: Any) -> None:
    """Without a body, as in the first version of the API, and with `simulate: false`."""
    put(configurationSet=None)
    verified = ask("verify", body=body)
    assert (verified.status, verified.json["simulated"]) == (200, None)
    record = ask("get").json
    assert (record["feedback"], record["lastFeedbackAt"], record["simulation"]) == ("off", None, None)
    assert record["feedbackHint"].startswith("Tenant: ")


def test_a_simulation_is_sent_to_the_simulator_and_shown() -> None:
    """The response has the id of each mail; the record has no events yet."""
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
def test_a_verify_with_an_invalid_body_sends_nothing(body: str, path: str) -> None:
    """Each fault is named, and the config is unchanged."""
    put()
    refusal = problem(ask("verify", body=body), 400, "invalid_request")
    assert [fault["path"] for fault in refusal["errors"]] == [path]
    assert ask("get").json["status"] == "unverified"


def test_a_simulation_needs_a_configuration_set() -> None:
    """SES would report nothing: the caller gets an error before any mail is sent."""
    put(configurationSet=None)
    refusal = problem(ask("verify", body={"simulate": True}), 400, "invalid_request")
    assert refusal["errors"][0]["path"] == "simulate"
    assert ask("get").json["status"] == "unverified"


# -- the lifecycle of a provider -----------------------------------------------------------------------------------------


def test_stores_shows_verifies_and_rotates(stack: Mapping[str, str]) -> None:
    """From no provider to an active key and to the next one, without a gap."""
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

    shown = put(fromName="Acme, new").json
    assert (shown["status"], shown["version"], shown["fromName"]) == ("active", 1, "Acme Billing")
    assert (shown["candidate"]["version"], shown["candidate"]["fromName"]) == (2, "Acme, new")

    assert SANDBOX_MAY_BE not in ask("verify").json["warnings"]
    rotated = ask("get").json
    assert (rotated["version"], rotated["fromName"], rotated["candidate"]) == (2, "Acme, new", None)
    assert json.dumps(KEY["config"]["secretAccessKey"]) not in json.dumps(
        boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"]), default=repr
    )


def test_a_failed_verify_keeps_the_active_key() -> None:
    """The new config's from-address is not verified: 422 with region and page; mail still goes out with the old one."""
    put()
    ask("verify")
    put(fromAddress="nobody@unverified.example", region="eu-central-1")
    refusal = problem(ask("verify"), 422, "from_address_not_verified")
    assert "eu-central-1" in refusal["hint"]
    shown = ask("get").json
    assert (shown["status"], shown["version"], shown["fromAddress"], shown["error"]) == ("active", 1, FROM, None)
    assert shown["candidate"]["error"]["hint"] == refusal["hint"]


def test_disable_enable_and_delete() -> None:
    """Each returns the record after it; DELETE removes it, and the version counter continues."""
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


def test_a_provider_at_risk_is_resumed_with_a_reason() -> None:
    """Neither `verify` nor `enable` without a reason does it; the record has who, why, and the caller."""
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
    resumption = resumed["resumption"]
    assert (resumption["by"], resumption["why"]) == ("sam", "the bought list is gone")
    assert resumption["principal"] == event("provider-enable")["requestContext"]["identity"]["userArn"]


def test_a_resumption_stores_the_counts_so_far() -> None:
    """The guard judges only what is counted after it, in the same hour too."""
    put()
    ask("verify")
    assert wiring.providers_table().suspend_at_risk("acme", ErrorInfo("reputation_at_risk", "30 bounces of 200"), row())
    hour = floor(wiring.clock().now())
    counts = {
        hour + number * timedelta(hours=1): Counts(sent=200, bounced=30 + number) for number in (-1, 0, 1)
    }  # the hour may change during the test
    for of_hour, number in counts.items():
        wiring.statistics_table().add(Bucket("acme", of_hour), "s", [Counted("1", number)])
    answer = ask("enable", body={"by": "sam", "why": "the bought list is gone"})
    assert "answered" not in answer.json["resumption"]
    resumption = row().resumption
    assert resumption is not None
    assert resumption.answered == counts[floor(resumption.at)]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"by": "sam"}, ""),
        ({"why": "fixed"}, ""),
        ({"by": "", "why": "x"}, "by"),
        ({"by": "a", "why": "b\n"}, "why"),
        ({"who": "sam"}, "who"),
    ],
)
def test_a_resumption_needs_both_by_and_why(body: Any, path: str) -> None:
    """Otherwise 400, and nothing changes."""
    put()
    ask("verify")
    ask("disable")
    refusal = problem(ask("enable", body=body), 400, "invalid_request")
    assert path in [fault["path"] for fault in refusal["errors"]]
    assert ask("get").json["status"] == "disabled"


def test_a_stored_config_is_decrypted_unchanged() -> None:
    """The ciphertext is bound to this tenant and version, and contains the same config."""
    put()
    candidate = row().candidate
    assert candidate is not None
    plaintext = wiring.config_cipher().decrypt("acme", "ses", 1, candidate.ciphertext)
    assert json.loads(plaintext) == KEY["config"]
    assert parse_config("ses", plaintext).from_address == FROM


def test_a_ciphertext_is_deleted_by_promotion_and_by_delete(stack: Mapping[str, str]) -> None:
    """The row has no ciphertext of the old key once the new one is active, and none after DELETE."""
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


def test_an_unreadable_external_id_is_an_error(stack: Mapping[str, str]) -> None:
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
    """Return every binary value in the table, at any depth."""

    def binaries(node: Any) -> Iterator[bytes]:
        if isinstance(node, dict):
            for value in node.values():
                yield from binaries(value)
        elif isinstance(node, bytes):
            yield node

    items = boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"])["Items"]
    return [value for item in items for value in binaries(item)]


def test_rows_swapped_between_tenants_are_unreadable(stack: Mapping[str, str]) -> None:
    """A writer of the table cannot send as another tenant: its config cannot be decrypted under another tenant's name."""
    put()
    body = json.dumps({**KEY, "config": {**KEY["config"], "fromName": "Evil"}})
    ask("put", tenant="evil", body=body)
    client, name = boto3.client("dynamodb"), stack["PROVIDERS_TABLE"]
    stolen = client.get_item(TableName=name, Key={"tenantId": {"S": "acme"}})["Item"]
    client.put_item(TableName=name, Item={**stolen, "tenantId": {"S": "evil"}})
    problem(ask("verify", tenant="evil"), 422, "config_unreadable")


def test_a_suspended_provider_shows_its_error_and_hint() -> None:
    """The error has the IAM statement for this config; a passing verify lifts the suspension."""
    put()
    ask("verify")
    denied, verified_at = ErrorInfo("credentials_denied", "AWS denied ses:SendRawEmail"), wiring.providers_table().get("acme").verified_at
    for request in ("r1", "r2", "r3"):
        wiring.providers_table().record_fault("acme", 1, request, denied, verified_at)
    shown = ask("get").json
    assert (shown["status"], shown["error"]["code"], shown["error"]["retryable"]) == ("suspended", "credentials_denied", True)
    hint = shown["error"]["hint"]
    statement = json.loads(hint[hint.index("{") :])
    assert f"arn:aws:ses:{SES_REGION}:123456789012:configuration-set/transactional" in statement["Resource"]
    problem(ask("enable"), 409, "provider_not_active")
    ask("verify")
    assert (ask("get").json["status"], ask("get").json["error"]) == ("active", None)


def test_smtp_depends_on_the_template_s_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with a clear text if it is not allowed, accepted if it is."""
    refusal = problem(ask("put-smtp"), 400, "invalid_request")
    assert "AllowSmtp" in refusal["detail"]
    monkeypatch.setenv("ALLOW_SMTP", "true")
    wiring.settings.cache_clear()
    wiring.provider_dependencies.cache_clear()
    stored = ask("put-smtp").json
    assert (stored["provider"], stored["credentials"], stored["region"]) == ("smtp", {"type": "smtp", "host": "localhost:1025"}, None)


# -- invalid requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["get", "put", "delete", "verify", "onboarding"])
def test_an_invalid_tenant_id_is_not_found(stack: Mapping[str, str], name: str) -> None:
    """Any such path gives a 404, and nothing is stored."""
    for tenant in ("a" * 65, "-acme", "..", "ac%2Fme", "acme.example", "ä"):
        problem(ask(name, tenant=tenant), 404, "not_found")
    assert boto3.client("dynamodb").scan(TableName=stack["PROVIDERS_TABLE"])["Count"] == 0


def test_any_invalid_body_is_a_400() -> None:
    """Every fault is named, and no body causes a 5xx."""
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


def test_faults_are_named_by_path() -> None:
    """A form can show each fault at its field."""
    refusal = problem(put(region="mars", accessKeyId=None, color="blue"), 400, "invalid_request")
    assert {fault["path"] for fault in refusal["errors"]} == {"config.region", "config.accessKeyId", "config.color"}


def test_a_body_that_is_too_large_is_a_400() -> None:
    """A config has a few hundred characters."""
    problem(ask("put", body=" " * (service.MAX_BODY + 1)), 400, "invalid_request")


def test_no_response_may_be_cached() -> None:
    """Neither a record nor an error: they contain account ids, and onboarding the ExternalId."""
    put()
    answers = [ask(name) for name in ("get", "onboarding", "verify", "enable", "delete", "get")]
    answers += [put(region="mars"), ask("get", tenant="..")]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
    assert {answer.status for answer in answers} == {200, 204, 400, 404}


def test_unknown_routes_are_not_found() -> None:
    """Also as problem+json."""
    for method, path in (("PATCH", "/tenants/acme/provider"), ("GET", "/tenants/acme/provider/verify"), ("GET", "/x")):
        problem(call(handler, {**event("provider-get"), "httpMethod": method, "path": path}), 404, "not_found")


def test_an_outage_of_dynamodb_is_a_503() -> None:
    """Each route has Retry-After."""
    down = ClientError({"Error": {"Code": "InternalServerError"}}, "x")
    with patch.object(wiring.dynamodb(), "get_item", side_effect=down):
        for name in ("put", "get", "verify", "disable", "enable", "delete", "onboarding"):
            answer = ask(name)
            problem(answer, 503, "dependency_unavailable")
            assert int(answer.headers["Retry-After"]) > 0


def test_an_outage_of_kms_is_a_503() -> None:
    """Nothing is stored unencrypted."""
    down = ClientError({"Error": {"Code": "ThrottlingException"}}, "GenerateDataKey")
    wiring.provider_dependencies()
    with patch.object(wiring.kms(), "generate_data_key", side_effect=down):
        problem(put(), 503, "dependency_unavailable")
    problem(ask("get"), 404, "not_found")


# -- the caller's identity -----------------------------------------------------------------------------------------------


def changes_logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == "provider changed"]


def test_each_change_has_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Row, record, log line and event have the identity that API Gateway authenticated."""
    changes = ["put", "verify", "disable", "enable", "put", "delete"]
    published = []
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
        published.append((change.detail["change"], change.detail["principal"]))
    logged = [(line["change"], line["principal"]) for line in changes_logged(caplog)]
    assert logged == published
    assert [change for change, _ in published] == ["stored", "verified", "disabled", "enabled", "stored", "deleted"]
    assert [arn[-1] for _, arn in published] == list("012345")


def test_a_failed_verify_has_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is stored with the caller, although nothing else changes."""
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
def test_a_call_without_an_identity_is_no_error(identity: Any, known: str | None) -> None:
    """A direct invocation has none; a value in its place is truncated, without control characters."""
    asked = event("provider-put")
    asked["requestContext"]["identity"] = identity
    assert call(handler, asked).status == 200
    assert row().updated_by == known


# -- secrets -------------------------------------------------------------------------------------------------------------

CANARIES = {"secretAccessKey": "canary/SECRET/key+0123456789abcdefghijkl", "accessKeyId": "AKIACANARYCANARYWXYZ"}
PASSWORD = "canary-PASSWORD-of-smtp"
MARKS = ("canary", "AKIACANARY", PASSWORD)


class AllLogs(logging.Handler):
    """Keeps the output of every logger, with tracebacks and extra fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(f"{record.name} {self.format(record)} {vars(record)}")


@pytest.fixture
def log() -> Iterator[AllLogs]:
    """Enable every logger at DEBUG."""
    listener = AllLogs()
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
    """Return a PUT with canary secrets."""
    body = json.loads(event(f"provider-{name}")["body"])
    secrets = {"username": "u", "password": PASSWORD} if body["provider"] == "smtp" else CANARIES
    return {**body, "config": {**body["config"], **secrets, **changes}}


def test_no_secret_leaks(
    stack: Mapping[str, str], log: AllLogs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Canary secrets through every route, error and failure, all loggers at DEBUG: they are only in ciphertext."""
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


def test_a_role_is_named_in_responses_only(stack: Mapping[str, str], log: AllLogs, capsys: pytest.CaptureFixture[str]) -> None:
    """PUT, GET and a failing verify return ARN and ExternalId; table, logs and output contain neither, nor parts of them."""
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

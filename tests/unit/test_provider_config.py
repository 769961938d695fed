"""Valid provider configs, and the problems of invalid ones."""

import json
import time
from typing import Any

import botocore.session
import pytest
from pydantic import SecretStr

from mailer.domain.errors import RequestError
from mailer.domain.provider import AccessKeyConfig, AssumableRole, RoleConfig, SmtpConfig, parse_config, parse_put
from mailer.domain.regions import SES_REGIONS, partition_of
from support.fakes.providers import KEY, ROLE, SECRET, SMTP, with_config


def refusal(body: str) -> dict[str, str]:
    """Return the problems of a rejected body by path."""
    with pytest.raises(RequestError) as refused:
        parse_put(body)
    assert refused.value.code == "invalid_request"
    return {problem.path: problem.problem for problem in refused.value.problems}


def test_reads_an_access_key() -> None:
    """The fields of the original system's SesConfig are accepted."""
    kind, config = parse_put(with_config(KEY, configurationSet="news", maxSendRate=14))
    assert kind == "ses"
    assert config == AccessKeyConfig(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key=SecretStr(SECRET),
        region="eu-west-1",
        from_address="billing@acme.example",
        from_name="Acme",
        configuration_set="news",
        max_send_rate=14,
    )


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::222222222222:role/SendMail",
        "arn:aws-us-gov:iam::222222222222:role/SendMail",
        "arn:aws-eusc:iam::222222222222:role/SendMail",
        "arn:aws:iam::222222222222:role/mail/senders/of+acme/Send.Mail@acme",
    ],
)
def test_reads_a_role_of_any_path_in_the_partition_of_its_region(arn: str) -> None:
    """A role config needs no secret; its account is in the ARN."""
    partition = arn.split(":")[1]
    _, config = parse_put(with_config(ROLE, roleArn=arn, region=SES_REGIONS[partition][0]))
    assert isinstance(config, RoleConfig)
    assert (config.role_arn, config.account, config.partition) == (arn, "222222222222", partition)


def test_regions_are_those_of_ses() -> None:
    """An SDK with a new region of SES fails here, so that its tenants are not rejected."""
    known = botocore.session.get_session()
    regions = {p: tuple(known.get_available_regions("ses", p)) for p in known.get_available_partitions()}
    assert {p: tuple(sorted(names)) for p, names in SES_REGIONS.items()} == {p: names for p, names in regions.items() if names}
    assert {partition_of(name): names for names in SES_REGIONS.values() for name in names} == dict(SES_REGIONS)


def test_a_role_of_another_partition_than_the_region_s_is_refused() -> None:
    """The problem is at the ARN, and names the partition that the region requires."""
    found = refusal(with_config(ROLE, roleArn="arn:aws-cn:iam::222222222222:role/x"))
    assert found.keys() == {"config.roleArn"}
    assert "arn:aws:" in found["config.roleArn"]


@pytest.mark.parametrize("tls", [("none", "none"), ("starttls", "starttls"), ("implicit", "implicit"), (True, "starttls"), (False, "none")])
def test_reads_smtp(tls: tuple[Any, str]) -> None:
    """An SMTP sink needs only host and port; `tls` is one of three words, or true or false as in SMTP clients."""
    given, expected = tls
    kind, config = parse_put(with_config(SMTP, tls=given))
    assert isinstance(config, SmtpConfig)
    assert (kind, config.tls, config.username) == ("smtp", expected, None)


@pytest.mark.parametrize("body", [KEY, ROLE, with_config(SMTP, username="u", password="canary-password")])
def test_an_encrypted_config_is_read_back(body: Any) -> None:
    """The plaintext for the encryption parses to an equal config."""
    kind, config = parse_put(body if isinstance(body, str) else json.dumps(body))
    stored = AssumableRole.of(config, "external-id") if isinstance(config, RoleConfig) else config
    assert parse_config(kind, stored.plaintext()) == stored


@pytest.mark.parametrize("kind", ["repr", "str", "json", "dump"])
def test_only_the_plaintext_has_secrets(kind: str) -> None:
    """No other representation has secrets, or more than the end of the key id."""
    _, key = parse_put(json.dumps(KEY))
    _, smtp = parse_put(with_config(SMTP, username="u", password="canary-password"))
    for config, secret in ((key, SECRET), (smtp, "canary-password")):
        written = {"repr": repr(config), "str": str(config), "json": config.model_dump_json(), "dump": repr(config.model_dump())}[kind]
        assert secret not in written
        assert secret.encode() in config.plaintext()
    assert "AKIAIOSFODNN7EXAMPLE" not in repr(key)


def test_shows_the_end_of_the_key_id() -> None:
    """This is what may be stored unencrypted of each kind of credentials."""
    assert parse_put(json.dumps(KEY))[1].shown() == {"type": "accessKey", "accessKeyId": "…MPLE"}
    assert parse_put(json.dumps(ROLE))[1].shown() == {"type": "role"}
    assert parse_put(json.dumps(SMTP))[1].shown() == {"type": "smtp", "host": "localhost:1025"}


FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (KEY, {"accessKeyId": None}, "config.accessKeyId"),
    (KEY, {"accessKeyId": 7}, "config.accessKeyId"),
    (KEY, {"accessKeyId": "AKIA"}, "config.accessKeyId"),
    (KEY, {"accessKeyId": "AKIAIOSFODNN7EXAMPLE\n"}, "config.accessKeyId"),
    (KEY, {"accessKeyId": "ASIAIOSFODNN7EXAMPLE"}, "config.accessKeyId"),
    (KEY, {"accessKeyId": "AKIAIOSFODNN7ÉXAMPLE"}, "config.accessKeyId"),
    (KEY, {"secretAccessKey": None}, "config.secretAccessKey"),
    (KEY, {"secretAccessKey": ""}, "config.secretAccessKey"),
    (KEY, {"secretAccessKey": " " + SECRET}, "config.secretAccessKey"),
    (KEY, {"secretAccessKey": SECRET + "\n"}, "config.secretAccessKey"),
    (KEY, {"secretAccessKey": [SECRET]}, "config.secretAccessKey"),
    (KEY, {"region": "us-east"}, "config.region"),
    (KEY, {"region": "eu-west-9"}, "config.region"),
    (KEY, {"region": "cn-north-1"}, "config.region"),
    (KEY, {"region": "us-iso-east-1"}, "config.region"),
    (KEY, {"region": "eu-west-1.evil.example/"}, "config.region"),
    (KEY, {"region": "EU-WEST-1"}, "config.region"),
    (KEY, {"region": "eu-west-1\n"}, "config.region"),
    (KEY, {"fromAddress": "acme.example"}, "config.fromAddress"),
    (KEY, {"fromAddress": "a@b.example\r\nBcc: x@y.example"}, "config.fromAddress"),
    (KEY, {"fromName": "Acme\r\nBcc: x@y.example"}, "config.fromName"),
    (KEY, {"fromName": "x" * 321}, "config.fromName"),
    (KEY, {"fromName": "=?utf-8?q?=0d=0aBcc:_x?="}, "config.fromName"),
    (KEY, {"configurationSet": "a b"}, "config.configurationSet"),
    (KEY, {"configurationSet": "x" * 65}, "config.configurationSet"),
    (KEY, {"maxSendRate": 0}, "config.maxSendRate"),
    (KEY, {"maxSendRate": 5e-324}, "config.maxSendRate"),
    (KEY, {"maxSendRate": "14"}, "config.maxSendRate"),
    (KEY, {"maxSendRate": 100_001}, "config.maxSendRate"),
    (KEY, {"maxSendRate": True}, "config.maxSendRate"),
    (KEY, {"sessionToken": "x"}, "config.sessionToken"),
    (KEY, {"access_key_id": "AKIAIOSFODNN7EXAMPLE"}, "config.access_key_id"),
    (ROLE, {"roleArn": "arn:aws:iam::222222222222:user/x"}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:aws:iam::2222:role/x"}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:aws:iam::222222222222:role/a//x"}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:aws:iam::222222222222:role/" + "x" * 65}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:aws:sts::222222222222:assumed-role/x/y"}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:aws:iam::222222222222:role/" + ("x" * 127 + "/") * 16 + "x"}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:aws-cn:iam::222222222222:role/x"}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:aws:iam::222222222222:role/x", "region": "us-gov-west-1"}, "config.roleArn"),
    (ROLE, {"roleArn": "arn:awsome:iam::222222222222:role/x"}, "config.roleArn"),
    (ROLE, {"externalId": "mine"}, "config.externalId"),
    (ROLE, {"accessKeyId": "AKIAIOSFODNN7EXAMPLE"}, "config"),
    (SMTP, {"host": "a b"}, "config.host"),
    (SMTP, {"host": "-x.example"}, "config.host"),
    (SMTP, {"host": "x" * 254}, "config.host"),
    (SMTP, {"port": 0}, "config.port"),
    (SMTP, {"port": 65536}, "config.port"),
    (SMTP, {"port": "25"}, "config.port"),
    (SMTP, {"username": "u"}, "config"),
    (SMTP, {"password": "p"}, "config"),
    (SMTP, {"username": "u", "password": "p\r\nQUIT"}, "config.password"),
    (SMTP, {"username": "u\r\nQUIT", "password": "p"}, "config.username"),
    (SMTP, {"tls": "ssl"}, "config.tls"),
    (SMTP, {"region": "eu-west-1"}, "config.region"),
]


@pytest.mark.parametrize(("body", "changes", "path"), FAULTS, ids=[f"{p}-{n}" for n, (_, _, p) in enumerate(FAULTS)])
def test_names_a_faulty_field_by_its_path(body: dict[str, Any], changes: dict[str, Any], path: str) -> None:
    """Each error is one problem with the caller's path and without the value."""
    found = refusal(with_config(body, **changes))
    assert list(found) == [path]
    given = [str(value) for value in changes.values() if value is not None and len(str(value)) > 4]
    assert not any(value in found[path] for value in given)


def test_names_every_fault_at_once() -> None:
    """A caller can correct all errors at once."""
    found = refusal('{"provider": "ses", "config": {"accessKeyId": 1, "region": "x", "fromName": "\\u0000", "more": 1}}')
    assert set(found) == {
        "config.accessKeyId",
        "config.secretAccessKey",
        "config.region",
        "config.fromAddress",
        "config.fromName",
        "config.more",
    }


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("", ""),
        ("[]", ""),
        ("null", ""),
        ('{"provider": "ses"}', "config"),
        ('{"provider": "ses", "config": []}', "config"),
        ('{"provider": "ses", "config": "x"}', "config"),
        ('{"provider": "ses", "config": null}', "config"),
        ('{"config": {"region": NaN}}', ""),
        (json.dumps({**KEY, "provider": "sendgrid"}), "provider"),
        (json.dumps({**KEY, "provider": ["ses"]}), "provider"),
        (json.dumps({**KEY, "tenantId": "acme"}), "tenantId"),
        (json.dumps(KEY).replace('"region"', '"region": "eu-west-1", "region"'), "config"),
    ],
)
def test_refuses_bodies_that_are_not_configs(body: str, path: str) -> None:
    """Any such body is rejected with a path."""
    assert path in refusal(body)


@pytest.mark.parametrize("field", ["host", "region", "accessKeyId", "fromAddress", "fromName"])
def test_hostile_text_is_rejected_quickly(field: str) -> None:
    """No pattern has unbounded backtracking: text that almost matches is rejected as fast as any other."""
    body = SMTP if field == "host" else KEY
    hostile = {"host": "a-" * 120 + "!", "region": "us" + "-a" * 4000, "fromAddress": "a." * 4000 + "@"}.get(field, "a" * 16_000 + "\n")
    started = time.process_time()
    assert f"config.{field}" in refusal(with_config(body, **{field: hostile}))
    assert time.process_time() - started < 0.5

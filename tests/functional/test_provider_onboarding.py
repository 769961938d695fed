"""The CloudFormation template for tenants is accepted by CloudFormation without warnings."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import cfnlint
import pytest

from mailer import wiring
from mailer.domain.errors import DependencyError
from mailer.domain.onboarding import onboarding_parameters, onboarding_template
from mailer.domain.provider import StoredConfig
from support.fakes.ports import PLATFORM, a_config

EXTERNAL_ID = "gkXb0Cj4nHk_5w2JRxZpTqYc8uAeD1LmVfSi7oQhB3E"
ROLE = a_config(account="222222222222", configuration_set="news", credentials={"type": "role"})


@pytest.mark.parametrize("config", [None, ROLE, a_config()], ids=["none", "role", "key"])
def test_cfn_lint_finds_nothing(tmp_path: Path, config: StoredConfig | None) -> None:
    """No error and no warning, with and without a stored config; and it is within CloudFormation's size limit."""
    text = onboarding_template(PLATFORM, onboarding_parameters("acme", EXTERNAL_ID, config), config)
    assert lint(tmp_path, text) == []
    assert len(text.encode()) < 51_200  # bytes of a TemplateBody


def test_cfn_lint_finds_nothing_in_the_shared_template(tmp_path: Path) -> None:
    """The one of the quick-create link."""
    assert lint(tmp_path, onboarding_template(PLATFORM, {})) == []


def lint(folder: Path, text: str) -> list[str]:
    file = folder / "onboarding.json"
    file.write_text(text, encoding="utf-8")
    return [str(match) for match in cfnlint.lint_file(file)]


def test_the_published_template_is_served_for_an_hour(aws: Mapping[str, str]) -> None:
    """From the private bucket, by a presigned URL; the same template creates no second object."""
    template = onboarding_template(PLATFORM, {})
    store = wiring.provider_dependencies().templates
    address = urlsplit(store.publish(template))
    assert store.publish(template).partition("?")[0] == address._replace(query="", fragment="").geturl()
    [found] = boto3.client("s3").list_objects_v2(Bucket=aws["ATTACHMENTS_BUCKET"], Prefix="onboarding/")["Contents"]
    assert address.path.endswith(found["Key"])
    assert parse_qs(address.query)["X-Amz-Expires"] == ["3600"]
    stored = boto3.client("s3").get_object(Bucket=aws["ATTACHMENTS_BUCKET"], Key=found["Key"])["Body"].read()
    assert stored.decode() == template


def test_an_unavailable_bucket_is_a_dependency_error(aws: Mapping[str, str]) -> None:
    """The API returns 503; the tenant is not at fault."""
    boto3.client("s3").delete_bucket(Bucket=aws["ATTACHMENTS_BUCKET"])
    with pytest.raises(DependencyError):
        wiring.provider_dependencies().templates.publish("{}")

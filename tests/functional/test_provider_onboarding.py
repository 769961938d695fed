"""The CloudFormation template that a tenant launches is one that CloudFormation takes, without a warning."""

import json
from pathlib import Path

import cfnlint
import pytest

from fakes import US, a_config
from mailer.domain.onboarding import role_template
from mailer.domain.provider import StoredConfig


@pytest.mark.parametrize("config", [None, a_config(account="222222222222", configuration_set="news")], ids=["none", "stored"])
def test_cfn_lint_finds_nothing(tmp_path: Path, config: StoredConfig | None) -> None:
    """Neither an error nor a warning, whether a config is stored or not; and it fits into what one call may carry."""
    text = role_template(US, "gkXb0Cj4nHk_5w2JRxZpTqYc8uAeD1LmVfSi7oQhB3E", config)
    file = tmp_path / "role.json"
    file.write_text(text, encoding="utf-8")
    found = cfnlint.lint_file(file)
    assert [str(match) for match in found] == []
    assert len(text.encode()) < 51_200  # bytes of a TemplateBody
    assert json.loads(text)["Outputs"].keys() == {"RoleArn"}

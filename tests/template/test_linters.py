"""The template passes its linters; each skipped rule has its reason next to the resource."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.aws import tables

TEMPLATE = tables.ROOT / "template.yaml"


def run(*command: str | Path) -> None:
    environment = {**os.environ, "AWS_DEFAULT_REGION": "eu-central-1", "SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(command, cwd=tables.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cfn_lint_with_the_serverless_rules_finds_nothing() -> None:
    """Names, types and values are valid, and serverless best practices are followed."""
    run(Path(sys.executable).with_name("cfn-lint"), "--template", TEMPLATE, "--append-rules", "cfn_lint_serverless.rules")


def test_cfn_lint_finds_nothing_in_the_expanded_template(expanded: Path, expanded_with_canaries: Path) -> None:
    """SAM's output is valid too, with and without canaries; SAM itself consumes that parameter (W2001)."""
    for path in (expanded, expanded_with_canaries):
        run(Path(sys.executable).with_name("cfn-lint"), "--template", path, "--ignore-checks", "W2001")


def test_sam_validates_the_template() -> None:
    """`sam build && sam deploy` accept the template."""
    run(tables.ROOT / ".venv-sam/bin/sam", "validate", "--lint", "--template", TEMPLATE)


def test_checkov_finds_nothing() -> None:
    """Every known misconfiguration has a reason."""
    checkov = tables.ROOT / ".venv-checkov/bin/checkov"
    run(checkov, "--file", TEMPLATE, "--framework", "cloudformation", "--compact", "--quiet", "--skip-download")


def test_each_skipped_rule_has_a_reason() -> None:
    """The reason is next to the skipped rule."""
    lines = TEMPLATE.read_text().splitlines()
    assert not [line for line in lines if re.search(r"checkov:skip=\w+(?!\w*:\S)", line)]
    for number, line in enumerate(lines):
        if "ignore_checks: [" in line:
            assert any("# cfn-lint: " in above for above in lines[number - 4 : number]), line

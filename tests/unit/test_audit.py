"""An incomplete audit is never reported as a clean one."""

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from tools import audit
from tools.audit import SOUND, UNCHECKED, VULNERABLE, judge, pinned

NAMES = {"boto3", "pydantic-core"}
BOTO3 = {"name": "boto3", "version": "1.0", "vulns": []}
CORE = {"name": "pydantic_core", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "boto3", "skip_reason": "Dependency not found on PyPI and could not be audited: boto3 (1.0)"}
FLAW = {"id": "PYSEC-1", "fix_versions": ["1.1"]}


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (answer(BOTO3, CORE), SOUND, "0 known vulnerabilities in the 2 packages"),
        (answer({**BOTO3, "vulns": [FLAW]}, CORE), VULNERABLE, "1 known vulnerabilities in the 2 packages"),
        (answer(UNKNOWN, {**CORE, "vulns": [FLAW]}), VULNERABLE, "NOT CHECKED: boto3; 1 known vulnerabilities in the 1 packages"),
        (answer(UNKNOWN, CORE), UNCHECKED, "NOT CHECKED: boto3; 0 known"),
        (answer(BOTO3), UNCHECKED, "NOT CHECKED: pydantic-core; 0 known"),
        (answer(UNKNOWN, {**CORE, "vulns": None}), UNCHECKED, "NOT CHECKED: the advisory service"),
        (answer(), UNCHECKED, "NOT CHECKED: the advisory service was not reached, or knows none of the 2 packages"),
        ("", UNCHECKED, "NOT CHECKED: the advisory service"),
        ("{}", UNCHECKED, "NOT CHECKED: the advisory service"),
        ('{"dependencies": [', UNCHECKED, "NOT CHECKED: the advisory service"),
    ],
)
def test_only_packages_with_a_result_count_as_checked(text: str, code: int, says: str) -> None:
    """Skipped packages, missing packages and no response at all are each reported, and none is a success."""
    found = judge(text, NAMES)
    assert found.exit_code == code
    assert says in found.summary


def test_a_vulnerability_is_reported_with_the_fixed_versions() -> None:
    """The advisory's id, and the versions that fix it."""
    assert judge(answer({**BOTO3, "vulns": [FLAW]}, CORE), NAMES).flaws == ["boto3 1.0: PYSEC-1, fixed in 1.1"]


def test_every_shipped_package_is_checked() -> None:
    """The pins are read from the functions' own requirements file, independently of the auditor."""
    names = pinned(audit.REQUIREMENTS.read_text())
    assert {"boto3", "pydantic-core", "aws-encryption-sdk", "urllib3"} <= names
    assert len(names) == audit.REQUIREMENTS.read_text().count("==")


@pytest.mark.parametrize(("arguments", "code"), [([], UNCHECKED), (["--tolerate-unchecked"], SOUND)])
@pytest.mark.parametrize("hangs", [False, True])
def test_an_incomplete_audit_fails_unless_that_is_tolerated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, *, hangs: bool
) -> None:
    """The last line reports it in both cases."""

    def run(*_: object, **__: object) -> Any:
        if hangs:
            raise subprocess.TimeoutExpired("pip-audit", 1)
        return SimpleNamespace(stdout="", returncode=1)

    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main(arguments) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith("audit: NOT CHECKED: ")

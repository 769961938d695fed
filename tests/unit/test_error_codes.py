"""Each error code is used by the code, has a test, is in the docs and says who must do what."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailer.adapters.providers import ses_errors, ses_v2_errors
from mailer.domain import remediation
from mailer.domain.changes import Fence
from mailer.domain.delivery import NotSent, Status
from mailer.domain.errors import CODES, ErrorClass, ErrorInfo
from mailer.domain.events import request_ended
from mailer.domain.proof import from_json, to_json
from mailer.domain.retries import retry_delay
from mailer.handlers.rest.models import StatusRecord
from support.fakes.ports import a_delivery
from tools.docs import provider_matrix
from tools.docs.api_reference import PAGE, REGENERATE, SECTIONS
from tools.docs.error_tables import OTHERWISE

ROOT = Path(__file__).resolve().parents[2]
THIS_FILE = Path(__file__)

WITHOUT_REMEDIATION = {"provider_not_configured", "provider_not_active", "config_unreadable", "reputation_at_risk"}
"""Tenant codes that no response of the tenant's account causes; they have only their hint."""

LATER_CODE = ErrorInfo("mailbox_on_the_moon", "of a later version")


def files_with(code: str, *places: Path) -> Iterator[Path]:
    """Find the sources that contain a code outside `CODES`."""
    quoted = re.compile(rf"""["']{code}["'](?!: Code\()|"code": "{code}\"""")
    for place in places:
        files = place.rglob("*.py") if place.is_dir() else [place]
        yield from (file for file in files if file != THIS_FILE and quoted.search(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_used(code: str) -> None:
    """A code that nothing uses must be removed."""
    assert list(files_with(code, ROOT / "src", ROOT / "template.yaml"))


@pytest.mark.parametrize("code", CODES)
def test_each_code_has_a_test(code: str) -> None:
    """Some test contains the code."""
    assert list(files_with(code, ROOT / "tests"))


@pytest.mark.parametrize("code", sorted({row.means for row in (*ses_errors.TABLE, *ses_v2_errors.TABLE)}))
def test_each_code_of_an_ses_error_has_a_test(code: str) -> None:
    """The tests of the table map SES's errors to the code."""
    assert code in CODES
    assert list(files_with(code, ROOT / "tests/unit/test_ses_errors.py"))


@pytest.mark.parametrize(
    "code", [code for code, row in CODES.items() if row.error_class is ErrorClass.TENANT and code not in WITHOUT_REMEDIATION]
)
def test_each_tenant_code_has_a_remediation_and_a_row_in_the_docs(code: str) -> None:
    """docs/providers.md shows the remediation."""
    assert code in remediation._REMEDIATIONS
    assert code in {fault.code for fault in provider_matrix.FAULTS}


@pytest.mark.parametrize("code", CODES)
def test_each_hint_begins_with_who_must_act(code: str) -> None:
    """Readers see first whether the hint is for them."""
    assert CODES[code].hint.split(": ")[0] in ("Caller", "Tenant", "Operator", "Nobody")


def test_the_hint_of_a_denied_call_fits_each_cause() -> None:
    """Expired credentials, a wrong signature, a missing right, and the list of tenants, which is under no tenant."""
    hint = CODES["access_denied"].hint
    assert "current credentials" in hint
    assert "tenant" not in hint


def test_the_docs_list_every_code() -> None:
    """The table has the request's outcome, the responses with the code, and who must do what."""
    assert SECTIONS["codes"]() in PAGE.read_text(encoding="utf-8"), REGENERATE
    assert set(OTHERWISE) <= set(CODES)


# -- codes of a later version --------------------------------------------------------------------------------------------


def test_a_code_of_a_later_version_is_shown_and_published() -> None:
    """After a roll-back records may have it: they are still read, listed and published."""
    record = a_delivery(status=Status.FAILED, error=LATER_CODE)
    event = request_ended("e-1", None, record)
    shown = StatusRecord.of(record, timedelta()).error
    assert event is not None
    assert shown is not None
    assert (event.detail["error"]["code"], shown.code, shown.retryable) == (LATER_CODE.code, LATER_CODE.code, False)
    assert shown.hint.startswith("Operator: ")


def test_a_proof_keeps_the_denied_rights() -> None:
    """Otherwise a mail that was denied only for its size would count against the tenant's config."""
    fence, outcome = Fence(1, "w"), NotSent(ErrorInfo("credentials_denied", "no", rights=("ses:SendRawEmail", "ses:SendEmail")))
    assert from_json(to_json(fence, outcome)) == (fence, outcome)


def test_a_proof_with_a_code_of_a_later_version_is_valid() -> None:
    """SES did not accept the mail, so it is retried; this version cannot know that the request should end."""
    fence, outcome = Fence(1, "w"), NotSent(LATER_CODE)
    assert from_json(to_json(fence, outcome)) == (fence, outcome)
    assert outcome.error.error_class is not ErrorClass.FAILED
    assert retry_delay(outcome, 1)

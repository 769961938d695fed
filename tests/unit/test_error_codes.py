"""Each error code arises somewhere, has a case where it does, stands in the docs and says who must do what."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailer.adapters.providers import ses_errors
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
HERE = Path(__file__)

TOLD_BY_US = {"provider_not_configured", "provider_not_active", "config_unreadable", "reputation_at_risk"}
"""Codes of the tenant's kind that no answer of the tenant's account leads to; their own hint is all that can be said."""

UNKNOWN_HERE = ErrorInfo("mailbox_on_the_moon", "of a later version")


def naming(code: str, *places: Path) -> Iterator[Path]:
    """Find the sources that name a code outside `CODES`."""
    quoted = re.compile(rf"""["']{code}["'](?!: Code\()|"code": "{code}\"""")
    for place in places:
        files = place.rglob("*.py") if place.is_dir() else [place]
        yield from (file for file in files if file != HERE and quoted.search(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("code", CODES)
def test_each_code_arises_somewhere(code: str) -> None:
    """A code that nothing gives tells nobody anything."""
    assert list(naming(code, ROOT / "src", ROOT / "template.yaml"))


@pytest.mark.parametrize("code", CODES)
def test_each_code_has_a_case(code: str) -> None:
    """Some test names it, where it arises."""
    assert list(naming(code, ROOT / "tests"))


@pytest.mark.parametrize("code", sorted({row.means for row in ses_errors.TABLE}))
def test_each_meaning_of_an_error_of_ses_has_a_case(code: str) -> None:
    """SES's words and our code stand side by side in the tests of the table."""
    assert code in CODES
    assert list(naming(code, ROOT / "tests/unit/test_ses_errors.py"))


@pytest.mark.parametrize("code", [code for code, row in CODES.items() if row.error_class is ErrorClass.TENANT and code not in TOLD_BY_US])
def test_each_fault_of_a_tenant_s_account_has_advice_and_a_row_in_the_docs(code: str) -> None:
    """docs/providers.md shows what its tenant is told."""
    assert code in remediation._REMEDIATIONS
    assert code in {fault.code for fault in provider_matrix.FAULTS}


@pytest.mark.parametrize("code", CODES)
def test_each_hint_begins_with_who_must_act(code: str) -> None:
    """Readers of a hint want to know first whether it is meant for them."""
    assert CODES[code].hint.split(": ")[0] in ("Caller", "Tenant", "Operator", "Nobody")


def test_the_docs_list_every_code() -> None:
    """What becomes of a request, which answers have it, and who must do what."""
    assert SECTIONS["codes"]() in PAGE.read_text(encoding="utf-8"), REGENERATE
    assert set(OTHERWISE) <= set(CODES)


# -- codes of a later version --------------------------------------------------------------------------------------------


def test_a_code_of_a_later_version_is_shown_and_told() -> None:
    """After a roll-back records may have it: they are read, listed and told of all the same."""
    record = a_delivery(status=Status.FAILED, error=UNKNOWN_HERE)
    event = request_ended("e-1", None, record)
    shown = StatusRecord.of(record, timedelta()).error
    assert event is not None
    assert shown is not None
    assert (event.detail["error"]["code"], shown.code, shown.retryable) == (UNKNOWN_HERE.code, UNKNOWN_HERE.code, False)
    assert shown.hint.startswith("Operator: ")


def test_a_proof_keeps_that_a_mail_was_denied_for_its_size_alone() -> None:
    """Or it would count against the tenant's config after all."""
    fence, outcome = Fence(1, "w"), NotSent(ErrorInfo("credentials_denied", "no", rights=("ses:SendRawEmail", "ses:SendEmail")))
    assert from_json(to_json(fence, outcome)) == (fence, outcome)


def test_a_proof_with_a_code_of_a_later_version_is_a_proof() -> None:
    """It says that SES has not accepted the mail, which is then tried again: an end would be more than is known here."""
    fence, outcome = Fence(1, "w"), NotSent(UNKNOWN_HERE)
    assert from_json(to_json(fence, outcome)) == (fence, outcome)
    assert outcome.error.error_class is not ErrorClass.FAILED
    assert retry_delay(outcome, 1)

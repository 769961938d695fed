"""The tags by which an event of SES finds the record of its message."""

import re
from itertools import product

import pytest

from mailer.domain.tags import OWN_TAGS, tagged


def request_tag(request_id: str) -> str:
    return tagged({}, tenant_id="acme", request_id=request_id, attempt=1)["tenantmail-request"]


def test_a_message_is_tagged_with_tenant_request_and_attempt() -> None:
    """Plain ids stay readable."""
    tags = tagged({"campaign": "spring"}, tenant_id="acme", request_id="invoice-2026-0001", attempt=2, correlation_id="order-7")
    own = {
        "tenantmail-tenant": "acme",
        "tenantmail-request": "invoice-2026-0001",
        "tenantmail-attempt": "2",
        "tenantmail-correlation": "order-7",
    }
    assert tags == {"campaign": "spring"} | own
    assert len(own) == OWN_TAGS


def test_a_caller_cannot_imitate_another_request() -> None:
    """Neither can it imitate a config's test mail: reserved tag names of the caller are left out."""
    named = {"tenantmail-request": "r2", "tenantmail-verify": "1", "tenantmail-simulation": "1"}
    assert tagged(named, tenant_id="acme", request_id="r1", attempt=1) == tagged({}, tenant_id="acme", request_id="r1", attempt=1)


def test_every_request_id_has_its_own_tag() -> None:
    """No two ids share a tag."""
    ids = ["r" + "".join(letters) for letters in product("_.:dcR-", repeat=4)]
    assert len({request_tag(request_id) for request_id in ids}) == len(ids)


@pytest.mark.parametrize("correlation_id", [None, "", "an order", "ä", "a" * 129])
def test_a_correlation_id_that_cannot_be_a_tag_is_left_out(correlation_id: str | None) -> None:
    """Producers on SQS may use any text; SES would reject the mail."""
    tags = tagged({}, tenant_id="acme", request_id="r1", attempt=1, correlation_id=correlation_id)
    assert "tenantmail-correlation" not in tags


def test_the_longest_id_is_a_valid_tag() -> None:
    """SES accepts 256 characters of its own alphabet."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,256}", request_tag("r" + ":" * 127))

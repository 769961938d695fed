"""Sends over many threads and tenants through one client: key, signature, sender and payload always belong together."""

from contextvars import ContextVar

import pytest
from botocore.credentials import ReadOnlyCredentials

from mailer.adapters.providers import acting
from support.isolation import VerifyingSes, assert_no_mix_up, sending


def test_no_send_is_ever_signed_for_another_tenant() -> None:
    """Not one mix-up; the same with ten times as many sends is part of `make prove`."""
    assert_no_mix_up(2_000)


class ForAllThreads:
    """What a careless hand would write: whom to act as, in one place for all threads."""

    def __init__(self, variable: ContextVar[ReadOnlyCredentials]) -> None:
        self.name = variable.name

    def set(self, value: ReadOnlyCredentials) -> None:
        self.value = value

    def get(self) -> ReadOnlyCredentials:
        return self.value

    def reset(self, token: None) -> None:
        """Leave it to the next one."""


def test_the_witness_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that all threads share are mixed up within a few hundred sends, and the check above sees it."""
    monkeypatch.setattr(acting, "_ACTING", ForAllThreads(acting._ACTING))
    ses = VerifyingSes()
    with sending(ses) as send:
        send(500)
    assert ses.mixed_up

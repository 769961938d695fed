"""Sends from many threads for many tenants through one client: key, signature, sender and payload always match."""

from contextvars import ContextVar

import pytest
from botocore.credentials import ReadOnlyCredentials

from mailer.adapters.providers import acting
from support.isolation import VerifyingSes, assert_no_mix_up, sending


def test_no_send_is_ever_signed_for_another_tenant() -> None:
    """No mix-up in 2 000 sends; `make prove` repeats it with ten times as many."""
    assert_no_mix_up(2_000)


class SharedByAllThreads:
    """The mistake to detect: one variable for all threads instead of a ContextVar."""

    def __init__(self, variable: ContextVar[ReadOnlyCredentials]) -> None:
        self.name = variable.name

    def set(self, value: ReadOnlyCredentials) -> None:
        self.value = value

    def get(self) -> ReadOnlyCredentials:
        return self.value

    def reset(self, token: None) -> None:
        """Keep the value."""


def test_the_check_detects_a_mix_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials shared by all threads are mixed up within a few hundred sends, and the check sees it."""
    monkeypatch.setattr(acting, "_ACTING", SharedByAllThreads(acting._ACTING))
    ses = VerifyingSes()
    with sending(ses) as send:
        send(500)
    assert ses.mixed_up

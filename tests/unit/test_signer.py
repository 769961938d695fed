"""The signer derives its key by KMS once, and reports outages of KMS."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from mailer.adapters.sqs.signer import ASK_AGAIN_AFTER, Signer
from mailer.domain.errors import DependencyError
from support.fakes.ports import FakeClock


class Kms:
    """A KMS client that derives a key, or fails."""

    def __init__(self, key: bytes = b"k" * 32) -> None:
        self.key = key
        self.failure: Exception | None = None
        self.calls: list[Mapping[str, Any]] = []

    def generate_mac(self, **call: Any) -> Any:
        self.calls.append(call)
        if self.failure:
            raise self.failure
        return {"Mac": self.key}


def a_signer(kms: Any, clock: FakeClock | None = None) -> Signer:
    return Signer(lambda: kms, "arn:key", (clock or FakeClock()).now)


def test_kms_is_called_once_for_all_threads() -> None:
    """A call for each message would cost more than the mail."""
    signer = a_signer(kms := Kms())
    with ThreadPoolExecutor(8) as threads:
        signed = set(threads.map(lambda _: signer.sign("{}", "body"), range(100)))
    assert (len(signed), len(kms.calls), kms.calls[0]["KeyId"]) == (1, 1, "arn:key")


def test_a_signature_with_another_key_is_invalid() -> None:
    """The key may be of another stack, or forged."""
    signed = a_signer(Kms()).sign("{}", "body")
    assert a_signer(Kms()).read(signed, "body") == "{}"
    assert a_signer(Kms(b"x" * 32)).read(signed, "body") is None


@pytest.mark.parametrize("garbage", ["", ".", "no dot", "ü.{}", "\ud800.\ud800", "a.b.c"])
def test_a_malformed_signature_is_invalid(garbage: str) -> None:
    """It raises no exception."""
    assert a_signer(Kms()).read(garbage, "body") is None


FAILURES = [
    ClientError({"Error": {"Code": "ThrottlingException"}}, "GenerateMac"),
    ClientError({"Error": {"Code": "AccessDeniedException"}}, "GenerateMac"),
    ReadTimeoutError(endpoint_url="https://kms"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_an_outage_of_kms_is_reported(failure: Exception) -> None:
    """A message that cannot be signed is handled like one that the queue rejects."""
    kms, reported = Kms(), []
    kms.failure = failure
    signer = Signer(lambda: cast("Any", kms), "arn:key", FakeClock().now, lambda *failure: reported.append(failure))
    for _ in range(3):
        with pytest.raises(DependencyError):
            signer.sign("{}", "body")
    assert [(step, str(error).partition(" (")[0]) for step, _, error in reported] == [
        ("ask for the queue's key", "KMS did not complete GenerateMac")
    ]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_during_an_outage_of_kms_no_signature_counts_as_invalid(failure: Exception) -> None:
    """The result is an error instead; a batch of a hundred does not wait a hundred times."""
    kms, clock = Kms(), FakeClock()
    signer, kms.failure = a_signer(kms, clock), failure
    for _ in range(3):
        with pytest.raises(DependencyError, match="KMS did not complete GenerateMac"):
            signer.read("mac.{}", "body")
    assert len(kms.calls) == 1
    kms.failure = None
    clock.advance(ASK_AGAIN_AFTER + timedelta(milliseconds=1))
    assert signer.read(signer.sign("{}", "body"), "body") == "{}"


def test_each_message_has_its_own_error() -> None:
    """A reused exception would get a longer traceback each time, written by several threads, which keeps bodies in memory."""
    kms = Kms()
    kms.failure = FAILURES[0]
    signer, raised = a_signer(kms), []
    for _ in range(3):
        with pytest.raises(DependencyError) as caught:
            signer.sign("{}", "body")
        raised.append(caught.value)
    assert len(set(map(id, raised))) == 3

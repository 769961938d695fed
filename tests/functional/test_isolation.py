"""Thousands of sends over many threads and tenants through one client: key, signature, sender and payload always belong together."""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from botocore.credentials import ReadOnlyCredentials

import tenants
from mailer.adapters import acting
from mailer.adapters.acting import TenantClients
from mailer.adapters.credentials import FixedKeys, Keys
from mailer.adapters.ses import SesProvider
from mailer.domain.delivery import Outcome, Sent
from ses_server import Reaction, Request, SesServer, accepted, refused

SENDS = int(os.environ.get("ISOLATION_SENDS", "2000"))
"""`make prove` sets 20000."""
THREADS = 32
TENANTS = 200


def secret_of(number: int) -> str:
    return f"secret/of+tenant-{number}-{'x' * 20}"


def access_key_of(number: int) -> str:
    return f"AKIATENANT{number:010d}"


def address_of(number: int) -> str:
    return f"mail@tenant-{number}.example"


class Witness:
    """A SES that knows every tenant's secret and looks at who signs, who sends and what is in the mail."""

    def __init__(self) -> None:
        self.mixed_up: list[str] = []
        self.seen = 0

    def __call__(self, request: Request) -> Reaction:
        number = int(request.access_key.removeprefix("AKIATENANT"))
        belongs = (
            request.fields["Source"] == address_of(number)
            and request.mime == body_of(number)
            and request.headers["authorization"].endswith(f"Signature={signature(request, secret_of(number))}")
        )
        self.seen += 1
        if not belongs:
            self.mixed_up.append(f"{request.access_key} sent for {request.fields['Source']}")
            return refused("SignatureDoesNotMatch", status=403)
        return accepted(f"id-of-{number}")


def body_of(number: int) -> bytes:
    return f"From: {address_of(number)}\r\n\r\nfor tenant {number} alone".encode()


def signature(request: Request, secret: str) -> str:
    """Sign the request anew, as AWS does to check it (Signature Version 4)."""
    _, scope_and_rest = request.headers["authorization"].split("Credential=")
    scope = scope_and_rest.split(",")[0].partition("/")[2]
    signed = scope_and_rest.split("SignedHeaders=")[1].split(",")[0]
    headers = "".join(f"{name}:{request.headers[name]}\n" for name in signed.split(";"))
    canonical = f"POST\n/\n\n{headers}\n{signed}\n{hashlib.sha256(request.body).hexdigest()}"
    to_sign = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


@pytest.fixture
def witness() -> Witness:
    return Witness()


Outcomes = list[tuple[int, Outcome]]


@pytest.fixture
def send_all(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Outcomes]]:
    """Send that many mails, of all tenants in turn, over all threads and one client."""
    with SesServer(witness, keep=True) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SES", server.url)
        clients = TenantClients(width=THREADS)
        providers = [tenants.ses(clients, keys_of(number)) for number in range(TENANTS)]

        def send(count: int) -> Outcomes:
            with ThreadPoolExecutor(THREADS) as pool:
                return list(pool.map(lambda turn: (turn % TENANTS, send_one(providers, turn % TENANTS)), range(count)))

        yield send


def keys_of(number: int) -> Keys:
    return FixedKeys(tenants.access_key(access_key_of(number), secret_of(number), address_of(number)))


def send_one(providers: list[SesProvider], number: int) -> Outcome:
    return providers[number].send(tenants.mail(body_of(number), mail_from=address_of(number)), tags={})


def test_no_send_is_ever_signed_for_another_tenant(send_all: Callable[[int], Outcomes], witness: Witness) -> None:
    """Not one mix-up: each mail is signed by its own tenant's key, and each answer comes back to the one who asked."""
    outcomes = send_all(SENDS)
    assert witness.mixed_up == []
    assert witness.seen == SENDS
    assert all(outcome == Sent(f"id-of-{number}") for number, outcome in outcomes)


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


def test_the_witness_would_notice(send_all: Callable[[int], Outcomes], witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that all threads share are mixed up within a few hundred sends, and the check above sees it."""
    monkeypatch.setattr(acting, "_ACTING", ForAllThreads(acting._ACTING))
    send_all(500)
    assert witness.mixed_up

"""Tenant isolation: many tenants and threads, one client, and an SES that checks that key, signature, sender and payload match."""

import hashlib
import hmac
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.credentials import StaticCredentials
from mailer.domain.delivery import Outcome, Sent
from support import tenants
from support.servers.ses_server import Reaction, Request, SesServer, accepted, refused

THREADS = 32
TENANTS = 200


def secret_of(number: int) -> str:
    return f"secret/of+tenant-{number}-{'x' * 20}"


def access_key_of(number: int) -> str:
    return f"AKIATENANT{number:010d}"


def address_of(number: int) -> str:
    return f"mail@tenant-{number}.example"


class VerifyingSes:
    """An SES that has every tenant's secret and checks signature, sender and content of each mail."""

    def __init__(self) -> None:
        self.seen: list[int] = []  # appending is thread-safe
        self.mixed_up: list[str] = []

    def __call__(self, request: Request) -> Reaction:
        number = int(request.access_key.removeprefix("AKIATENANT"))
        belongs = (
            request.fields["Source"] == address_of(number)
            and request.mime == body_of(number)
            and request.headers["authorization"].endswith(f"Signature={signature(request, secret_of(number))}")
        )
        self.seen.append(number)
        if not belongs:
            self.mixed_up.append(f"{request.access_key} sent for {request.fields['Source']}")
            return refused("SignatureDoesNotMatch", status=403)
        return accepted(f"id-of-{number}")


def body_of(number: int) -> bytes:
    return f"From: {address_of(number)}\r\n\r\nfor tenant {number} alone".encode()


def signature(request: Request, secret: str) -> str:
    """Sign the request again, as AWS does to verify it (Signature Version 4)."""
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


def keys_of(number: int) -> StaticCredentials:
    return StaticCredentials(tenants.access_key(access_key_of(number), secret_of(number), address_of(number)))


@contextmanager
def sending(ses: VerifyingSes) -> Iterator[Callable[[int], list[tuple[int, Outcome]]]]:
    """Yield a function that sends mails of all tenants in rotation, over all threads and one client."""
    with SesServer(ses) as server, pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(THREADS) as pool:
        patch.setenv("AWS_ENDPOINT_URL_SES", server.url)
        clients = TenantClients(width=THREADS)
        providers = [tenants.ses(clients, keys_of(number)) for number in range(TENANTS)]

        def send(turn: int) -> tuple[int, Outcome]:
            number = turn % TENANTS
            return number, providers[number].send(tenants.mail(body_of(number), mail_from=address_of(number)), tags={})

        between = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # seconds: switch threads within calls too
        try:
            yield lambda count: list(pool.map(send, range(count)))
        finally:
            sys.setswitchinterval(between)


def assert_no_mix_up(sends: int) -> None:
    """Assert that each mail is signed with its own tenant's key, and each response returned to its own caller."""
    ses = VerifyingSes()
    with sending(ses) as send:
        outcomes = send(sends)
    assert ses.mixed_up == []
    assert len(ses.seen) == sends
    assert all(outcome == Sent(f"id-of-{number}") for number, outcome in outcomes)

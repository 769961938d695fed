"""The facts of an account: queried without requiring rights, certain or unknown, and never an error."""

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from mailer.adapters.providers.acting import TenantClients
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError
from mailer.ports import AccountFacts, Cleared
from support import tenants
from support.servers.ses_server import Answer, Hang, Reaction, Request, SesServer, refused

QUOTA = (
    "<GetSendQuotaResponse><GetSendQuotaResult><Max24HourSend>{quota}</Max24HourSend><MaxSendRate>{rate}</MaxSendRate>"
    "<SentLast24Hours>1</SentLast24Hours></GetSendQuotaResult></GetSendQuotaResponse>"
)
IDENTITY = Answer(
    "<GetCallerIdentityResponse><GetCallerIdentityResult><Account>222222222222</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)
ACCOUNT = '{{"ProductionAccessEnabled": {production}, "SendQuota": {{"Max24HourSend": {quota}, "MaxSendRate": {rate}}}}}'


class Account(SesServer):
    """Gives set responses to each call; `asked` lists the calls."""

    def __init__(self) -> None:
        self.answers: dict[str, Reaction] = {}
        super().__init__(self.answer)

    def answer(self, request: Request) -> Reaction:
        denied = refused("AccessDenied", status=403) if request.body else Answer('{"__type": "AccessDeniedException"}', status=403)
        return self.answers.get(question(request), denied)

    @property
    def asked(self) -> list[str]:
        return [question(request) for request in self.requests]


def question(request: Request) -> str:
    if "/suppression/addresses/" in request.line:
        return "DeleteSuppressedDestination" if request.line.startswith("DELETE") else "GetSuppressedDestination"
    return request.fields["Action"] if request.body else "GetAccount"


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Account, TenantClients]]:
    clients = TenantClients(width=1, connect_timeout=2.0, read_timeout=2.0)
    with Account() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        for client in (clients.ses, clients.sesv2, clients.sts):
            client(tenants.REGION)
        assert urlsplit(clients.sesv2(tenants.REGION).meta.endpoint_url).port == server.port
        yield server, clients


@pytest.fixture
def account(shared: tuple[Account, TenantClients]) -> Account:
    server = shared[0]
    server.answers = {"GetCallerIdentity": IDENTITY}
    server.requests.clear()
    return server


@pytest.fixture
def clients(shared: tuple[Account, TenantClients]) -> TenantClients:
    return shared[1]


def quota(quota: float, rate: float) -> Answer:
    return Answer(QUOTA.format(quota=quota, rate=rate))


FACTS = AccountFacts(account="222222222222", sandbox=False, max_send_rate=14.0, quota_24h=50_000.0)


def test_get_account_gives_the_facts(account: Account, clients: TenantClients) -> None:
    """If the policy allows it, one call gives everything but the account's id."""
    account.answers["GetAccount"] = Answer(ACCOUNT.format(production="true", quota=50000, rate=14))
    assert tenants.ses(clients).account_facts() == FACTS
    assert account.asked == ["GetAccount", "GetCallerIdentity"]


def test_get_account_gives_the_sandbox(account: Account, clients: TenantClients) -> None:
    """No production access means the sandbox."""
    account.answers["GetAccount"] = Answer(ACCOUNT.format(production="false", quota=200, rate=1))
    assert tenants.ses(clients).account_facts() == replace(FACTS, sandbox=True, max_send_rate=1.0, quota_24h=200.0)


@pytest.mark.parametrize(
    ("limits", "facts"),
    [
        ((200.0, 1.0), replace(FACTS, sandbox=True, max_send_rate=1.0, quota_24h=200.0)),
        ((50000.0, 14.0), FACTS),
        ((200.0, 14.0), replace(FACTS, quota_24h=200.0)),
        ((-1.0, 500.0), replace(FACTS, max_send_rate=500.0, quota_24h=None)),
    ],
)
def test_the_quota_shows_the_sandbox(account: Account, clients: TenantClients, limits: tuple[float, float], facts: AccountFacts) -> None:
    """200 in 24 hours at 1 a second is the sandbox's quota; -1 means no limit."""
    account.answers["GetSendQuota"] = quota(*limits)
    assert tenants.ses(clients).account_facts() == facts


def test_without_rights_only_the_account_is_known(account: Account, clients: TenantClients) -> None:
    """With a key that may only send nothing fails: the sandbox is unknown, and STS returns the account's id to every caller."""
    assert tenants.ses(clients).account_facts() == AccountFacts(account="222222222222")
    assert account.asked == ["GetAccount", "GetSendQuota", "GetCallerIdentity"]


def test_a_denied_call_is_not_repeated(account: Account, clients: TenantClients) -> None:
    """Denials are visible in the tenant's CloudTrail."""
    provider = tenants.ses(clients)
    provider.account_facts()
    account.requests.clear()
    provider.account_facts()
    assert account.asked == ["GetCallerIdentity"]


def test_a_call_that_failed_otherwise_is_repeated(account: Account, clients: TenantClients) -> None:
    """A throttle or a timeout is not a denial."""
    provider = tenants.ses(clients)
    account.answers |= {"GetAccount": refused("Throttling"), "GetSendQuota": Hang(), "GetCallerIdentity": Answer("garbage")}
    assert provider.account_facts() == AccountFacts()
    account.answers["GetSendQuota"] = quota(50000, 14)
    assert provider.account_facts().sandbox is False


def test_a_role_s_account_is_not_queried(account: Account, clients: TenantClients) -> None:
    """It is in its ARN."""
    assert tenants.ses(clients, account="333333333333").account_facts().account == "333333333333"
    assert "GetCallerIdentity" not in account.asked


@pytest.mark.parametrize("failure", [NotSentError(ErrorInfo("role_not_assumable", "x")), DependencyError("STS", "AssumeRole")])
def test_without_credentials_nothing_is_known(account: Account, clients: TenantClients, failure: Exception) -> None:
    """It is no error even then; and no address is removed from the suppression list."""

    class NoKeys:
        def current(self) -> None:
            raise failure

        renewed = current

    provider = tenants.ses(clients, NoKeys())  # type: ignore[arg-type]
    assert provider.account_facts() == AccountFacts()
    assert provider.clear_suppression("jo@example.com") is Cleared.UNKNOWN
    assert account.requests == []


# ── the account's own suppression list ──────────────────────────────────────────────────────────────────────────────────

NOT_FOUND = Answer('{"__type": "NotFoundException"}', status=404)
FOUND = Answer('{"SuppressedDestination": {"EmailAddress": "jo@example.com", "Reason": "BOUNCE", "LastUpdateTime": 0}}')


@pytest.mark.parametrize(("answer", "cleared"), [(Answer("{}"), Cleared.GONE), (NOT_FOUND, Cleared.NOT_FOUND)])
def test_a_removed_address_is_distinguished_from_a_missing_one(
    account: Account, clients: TenantClients, answer: Answer, cleared: Cleared
) -> None:
    """By one call, if the policy allows it; the list may have the address in another spelling."""
    account.answers["DeleteSuppressedDestination"] = answer
    assert tenants.ses(clients).clear_suppression("jo@example.com") is cleared
    assert account.asked == ["DeleteSuppressedDestination"]


@pytest.mark.parametrize(("answer", "cleared"), [(FOUND, Cleared.UNKNOWN), (NOT_FOUND, Cleared.NOT_FOUND)])
def test_a_role_that_may_only_read_finds_out_whether_the_address_is_listed(
    account: Account,
    clients: TenantClients,
    answer: Answer,
    cleared: Cleared,
) -> None:
    """The right to remove it may be missing."""
    account.answers["GetSuppressedDestination"] = answer
    assert tenants.ses(clients).clear_suppression("jo@example.com") is cleared
    assert account.asked == ["DeleteSuppressedDestination", "GetSuppressedDestination"]


def test_a_role_without_both_rights_is_not_asked_again(account: Account, clients: TenantClients) -> None:
    """Nothing needs these rights."""
    provider = tenants.ses(clients)
    assert provider.clear_suppression("jo@example.com") is Cleared.UNKNOWN
    assert provider.clear_suppression("ann@example.com") is Cleared.UNKNOWN
    assert account.asked == ["DeleteSuppressedDestination", "GetSuppressedDestination"]


@pytest.mark.parametrize("answer", [Hang(), Answer("nonsense", status=500), Answer('{"__type": "TooManyRequestsException"}', status=429)])
def test_an_account_that_does_not_respond_clears_nothing(account: Account, clients: TenantClients, answer: Reaction) -> None:
    """That is no error: the caller gets the command."""
    account.answers |= {"DeleteSuppressedDestination": answer, "GetSuppressedDestination": answer}
    assert tenants.ses(clients).clear_suppression("jo@example.com") is Cleared.UNKNOWN

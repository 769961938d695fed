"""Query a tenant's account: whether it is in the sandbox, how fast it may send, its id; and its suppression list."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError

from mailer.adapters.providers.acting import TenantClients, acting_as
from mailer.ports import AccountFacts, Cleared

SANDBOX_QUOTA, SANDBOX_RATE = 200, 1
"""Recipients in 24 hours and per second: the quota of every account in the sandbox, and of no other."""

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "NotAuthorized"})


@dataclass(slots=True)
class AccountQuestions:
    """Queries to one account in one region; a call that its policy does not allow is not repeated."""

    clients: TenantClients
    region: str
    account: str | None
    """The account's id, if the config has it (in a role's ARN)."""
    _denied: set[str] = field(default_factory=set)

    def ask(self, credentials: ReadOnlyCredentials) -> AccountFacts:
        """Query as the tenant; no right besides `ses:SendRawEmail` is needed, but with others more is learned."""
        with acting_as(credentials):
            facts = self._from_account() or self._from_quota() or AccountFacts()
            return replace(facts, account=self.account or self._identity())

    def clear_suppression(self, email: str, credentials: ReadOnlyCredentials) -> Cleared:
        """Take an address off the account's list, or see that it is not there; `email` is compared with upper and lower case."""
        with acting_as(credentials):
            client = self.clients.sesv2(self.region)
            deleted = self._shown_by(
                "DeleteSuppressedDestination", lambda: client.delete_suppressed_destination(EmailAddress=email), success=Cleared.GONE
            )
            if deleted is not Cleared.UNKNOWN:
                return deleted
            return self._shown_by(
                "GetSuppressedDestination", lambda: client.get_suppressed_destination(EmailAddress=email), success=Cleared.UNKNOWN
            )

    def _shown_by(self, operation: str, call: Callable[[], Mapping[str, Any]], *, success: Cleared) -> Cleared:
        """Return what a call shows of an address on the list."""
        if operation in self._denied:
            return Cleared.UNKNOWN
        try:
            call()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code in _DENIED:
                self._denied.add(operation)
            return Cleared.NOT_FOUND if code == "NotFoundException" else Cleared.UNKNOWN
        except Exception:  # noqa: BLE001  # what an account does not tell is never worth an error
            return Cleared.UNKNOWN
        return success

    def _from_account(self) -> AccountFacts | None:
        """Ask SES v2, which knows for certain."""
        answer = self._try("GetAccount", lambda: self.clients.sesv2(self.region).get_account())
        if answer is None:
            return None
        quota = answer.get("SendQuota") or {}
        return AccountFacts(
            sandbox=None if (granted := answer.get("ProductionAccessEnabled")) is None else not granted,
            max_send_rate=_limit(quota.get("MaxSendRate")),
            quota_24h=_limit(quota.get("Max24HourSend")),
        )

    def _from_quota(self) -> AccountFacts | None:
        answer = self._try("GetSendQuota", lambda: self.clients.ses(self.region).get_send_quota())
        if answer is None:
            return None
        rate, quota = answer.get("MaxSendRate"), answer.get("Max24HourSend")
        return AccountFacts(sandbox=(quota, rate) == (SANDBOX_QUOTA, SANDBOX_RATE), max_send_rate=_limit(rate), quota_24h=_limit(quota))

    def _identity(self) -> str | None:
        """Ask STS, which needs no right."""
        answer = self._try("GetCallerIdentity", lambda: self.clients.sts(self.region).get_caller_identity())
        return None if answer is None else answer.get("Account")

    def _try(self, operation: str, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """Return the answer, or None for any error."""
        if operation in self._denied:
            return None
        with suppress(Exception):  # the facts are optional: no error is raised for them
            try:
                return call()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _DENIED:
                    self._denied.add(operation)
        return None


_MOST = 1e12
"""Recipients a second, or a day: a greater number is not a limit of SES, and DynamoDB may not take it."""


def _limit(value: Any) -> float | None:
    """Read a limit of SES; -1 means none."""
    return value if isinstance(value, int | float) and 0 < value <= _MOST else None

"""Limit how much parked mail is released: no more than its sending accounts may send."""

from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Protocol

from mailer.domain.errors import DependencyError
from mailer.domain.pacing import AccountRate
from mailer.domain.provider import Blocked, StoredConfig, sending_state
from mailer.ports import AccountRates, Clock, ProvidersTable
from mailer.services.pacing.accounts import account_of, rate_source


@dataclass(slots=True)
class ReleaseBudget:
    """How much of a sending account's parked mail may still be released in this run."""

    account_rate: AccountRate
    remaining: int
    """Recipients that find a slot, and are this run's share of those that do."""
    share: float = 1.0
    """This run's share of the account's mail that is due; other runs release the rest at the same time."""

    def take(self, recipients: int) -> bool:
        """Spend budget on a message, if any is left."""
        if self.remaining <= 0:
            return False
        self.remaining -= recipients
        return True

    def retry_at(self, recipients: int, now: datetime) -> datetime:
        """Return about when a message over budget may be released: each one later than the one before."""
        time = now.timestamp()
        weight = round(recipients / self.share)  # the other runs count theirs by themselves, from the same place
        self.account_rate = self.account_rate.after(self.account_rate.promise([weight], time))
        return self.account_rate.retry_at(self.account_rate.promised - weight, time).at


class RateDependencies(Protocol):
    """What release budgets depend on."""

    @property
    def providers(self) -> ProvidersTable:
        """Return the provider rows."""
        ...

    @property
    def account_rates(self) -> AccountRates:
        """Return the rates of the sending accounts."""
        ...

    @property
    def clock(self) -> Clock:
        """Return the clock."""
        ...

    @property
    def workers(self) -> Executor:
        """Return the threads."""
        ...


class ReleaseBudgets:
    """The budgets of one run; tenants on one account share theirs, and each is looked up once.

    Of several runs at the same time each has its share: requests are spread evenly over the shards that they sweep.
    """

    def __init__(self, deps: RateDependencies, share: float = 1.0) -> None:
        self._deps = deps
        self._share = share
        self._tenants: dict[str, ReleaseBudget | Blocked | DependencyError | None] = {}
        self._accounts: dict[str, ReleaseBudget | DependencyError] = {}

    def of(self, tenant_ids: Collection[str]) -> Mapping[str, ReleaseBudget | Blocked | DependencyError | None]:
        """Return each tenant's budget, or why its mail is blocked; None if all of it may be released, as with SMTP.

        If its row, or its account's rate, could not be read, the value is that error, and its mail stays parked.

        Raises:
            DependencyError: a table did not answer.
        """
        unknown = sorted(set(tenant_ids) - self._tenants.keys())
        if unknown:
            rows = self._deps.providers.get_many(unknown)
            # As for new mail: requests from before a DELETE fail when their pointers are read.
            now = self._deps.clock.now()
            unreadable = {tenant_id: row for tenant_id, row in rows.items() if isinstance(row, DependencyError)}
            readable = {tenant_id: row for tenant_id, row in rows.items() if not isinstance(row, DependencyError)}
            states = {tenant_id: sending_state(readable.get(tenant_id), now) for tenant_id in unknown if tenant_id not in unreadable}
            self._tenants |= unreadable
            self._look_up({tenant_id: state for tenant_id, state in states.items() if isinstance(state, StoredConfig)})
            # Mail that can never be sent is requeued too, and ends with its reason.
            self._tenants |= {
                tenant_id: state if state.waits else None for tenant_id, state in states.items() if isinstance(state, Blocked)
            }
        return {tenant_id: self._tenants[tenant_id] for tenant_id in tenant_ids}

    def _look_up(self, configs: Mapping[str, StoredConfig]) -> None:
        accounts = {tenant_id: account_of(tenant_id, config) for tenant_id, config in configs.items()}
        missing = {key: configs[tenant_id] for tenant_id, key in accounts.items() if key is not None and key not in self._accounts}
        self._accounts |= dict(zip(missing, self._deps.workers.map(self._budget, missing, missing.values()), strict=True))
        self._tenants |= {tenant_id: self._accounts[key] if key else None for tenant_id, key in accounts.items()}

    def _budget(self, account: str, config: StoredConfig) -> ReleaseBudget | DependencyError:
        now = self._deps.clock.now().timestamp()
        try:
            known = self._deps.account_rates.get(account)
        except DependencyError as failure:
            return failure
        account_rate = known or AccountRate.initial(rate_source([config]), now)
        return ReleaseBudget(account_rate, ceil(account_rate.capacity(now) * self._share), self._share)

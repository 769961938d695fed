"""Tell which sending account a config's mail counts towards, and where that account's rate comes from."""

from collections.abc import Callable, Collection

from mailer.domain.pacing import RateSource, account_key
from mailer.domain.provider import StoredConfig


def account_of(tenant_id: str, config: StoredConfig) -> str | None:
    """Return the key of the account's rate; None where nothing is paced, as with SMTP."""
    return account_key(tenant_id, config.region, config.account) if config.provider == "ses" else None


def rate_source(configs: Collection[StoredConfig], ask: Callable[[], float | None] | None = None) -> RateSource:
    """Return where the rate of an account comes from; of several tenants that share it the lowest counts.

    That an account is in the sandbox, as a refused recipient shows, is no source: an unknown account begins at the rate of the sandbox
    anyway, and nobody would tell us when it leaves it.
    """
    return RateSource(
        configured=min((config.max_send_rate for config in configs if config.max_send_rate is not None), default=None),
        quota=min((config.quota_rate for config in configs if config.quota_rate is not None), default=None),
        ask=ask,
    )

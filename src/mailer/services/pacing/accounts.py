"""The sending account of a config, and the source of that account's rate."""

from collections.abc import Callable, Collection

from mailer.domain.pacing import RateSource, account_key
from mailer.domain.provider import StoredConfig


def account_of(tenant_id: str, config: StoredConfig) -> str | None:
    """Return the key of the account's rate; None if it is not paced, as with SMTP."""
    return account_key(tenant_id, config.region, config.account) if config.provider == "ses" else None


def rate_source(configs: Collection[StoredConfig], ask: Callable[[], float | None] | None = None) -> RateSource:
    """Return the source of an account's rate; if several tenants share the account, the lowest rate counts.

    A refused recipient shows that an account is in the sandbox, but that is not a source: an unknown account starts at the sandbox's rate
    anyway, and we would not learn when it leaves the sandbox.
    """
    return RateSource(
        configured=min((config.max_send_rate for config in configs if config.max_send_rate is not None), default=None),
        quota=min((config.quota_rate for config in configs if config.quota_rate is not None), default=None),
        ask=ask,
    )

"""Seed the fake AWS with provider rows whose configs are encrypted by the real cipher."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from mailer import wiring
from mailer.domain.provider import Provider, ProviderStatus, StoredConfig, parse_config
from tools.bench.send.workload import Tenant

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def seed(tenants: Sequence[Tenant]) -> None:
    """Store each tenant as verified and active."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_store, tenants))


def _store(tenant: Tenant) -> None:
    config = parse_config("ses", json.dumps(tenant.config))
    stored = StoredConfig(
        provider="ses",
        version=1,
        ciphertext=wiring.config_cipher().encrypt(tenant.tenant_id, "ses", 1, config.plaintext()),
        region=tenant.config["region"],
        from_address=config.from_address,
        from_name=config.from_name,
        credentials=config.shown(),
        max_send_rate=tenant.config["maxSendRate"],
        account=f"{tenant.number:012d}",
    )
    row = Provider(
        tenant_id=tenant.tenant_id,
        status=ProviderStatus.ACTIVE,
        versions=1,
        encrypted_external_id=b"-",
        active=stored,
        verified_at=NOW,
        updated_at=NOW,
    )
    assert wiring.providers_table().replace(row)

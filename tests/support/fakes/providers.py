"""The provider API with fakes.

Rows in a dict, a cipher that only records its encryption context, an account with scripted responses.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from typing import Any

from mailer.domain.cursors import LISTED_PROVIDER, from_cursor, to_cursor
from mailer.domain.delivery import Outcome, Sent
from mailer.domain.errors import ErrorInfo, NotSentError
from mailer.domain.mime import Mail, Sender
from mailer.domain.provider import Provider, ProviderStatus, RoleConfig, StoredConfig
from mailer.ports import AccountFacts, Cleared, ProviderPage
from mailer.services.providers.providers import ProviderDependencies
from support.fakes.ports import PLATFORM, FakeClock, FakeTelemetry
from support.fakes.statistics import FakeStatisticsTable

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SENDER = {"region": "eu-west-1", "fromAddress": "billing@acme.example", "fromName": "Acme"}
KEY = {"provider": "ses", "config": {"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": SECRET, **SENDER}}
ROLE_ARN = "arn:aws:iam::222222222222:role/SendMail"
ROLE = {"provider": "ses", "config": {"roleArn": ROLE_ARN, **SENDER}}
SMTP = {"provider": "smtp", "config": {"host": "localhost", "port": 1025, "fromAddress": "billing@acme.example", "fromName": "Acme"}}


def with_config(body: Mapping[str, Any], **changes: Any) -> str:
    """Return a body with changed fields of its config; None removes one."""
    config = {name: value for name, value in {**body["config"], **changes}.items() if value is not None}
    return json.dumps({**body, "config": config})


class FakeStore:
    """Rows by tenant, and the row before and after each write.

    `before_write` is called once before a write, to simulate a concurrent writer.
    """

    def __init__(self, *rows: Provider) -> None:
        self.rows = {row.tenant_id: row for row in rows}
        self.before_write: Callable[[Provider], None] = lambda _: None
        self.writes: list[tuple[Provider | None, Provider]] = []

    def get(self, tenant_id: str) -> Provider | None:
        return self.rows.get(tenant_id)

    def replace(self, row: Provider) -> bool:
        self.before_write(row)
        stored = self.rows.get(row.tenant_id)
        if (stored.revision if stored else 0) != row.revision:
            return False
        self.rows[row.tenant_id] = replace(row, revision=row.revision + 1)
        self.writes.append((stored, self.rows[row.tenant_id]))
        return True

    def list(self, *, status: ProviderStatus | None, limit: int, cursor: str | None) -> ProviderPage:
        after = from_cursor(cursor, "providers", status or "", key=LISTED_PROVIDER) if cursor is not None else ""
        listed = [row for row in self.rows.values() if row.status is not ProviderStatus.DELETED and status in (None, row.status)]
        places = {f"{row.status}#{row.tenant_id}": row for row in listed}
        page = [place for place in sorted(places) if place > after][: limit + 1]
        more = to_cursor("providers", status or "", page[limit - 1]) if len(page) > limit else None
        return ProviderPage([places[place] for place in page[:limit]], more)


class FakeConfigCipher:
    """Does not encrypt, but decrypts only for the tenant, provider and version of the encryption."""

    def encrypt(self, tenant_id: str, provider: str, version: int, plaintext: bytes) -> bytes:
        return json.dumps([tenant_id, provider, version, b64encode(plaintext).decode()]).encode()

    def decrypt(self, tenant_id: str, provider: str, version: int, ciphertext: bytes) -> bytes:
        *bound, text = json.loads(ciphertext)
        if bound != [tenant_id, provider, version]:
            raise NotSentError(ErrorInfo("config_unreadable", "encrypted for another"))
        return b64decode(text)


@dataclass
class FakeAccount:
    """A provider: returns `outcome` for every mail, and stores the mails."""

    outcome: Outcome
    facts: AccountFacts = field(default_factory=AccountFacts)
    name: str = "ses"
    sender: Sender = field(default_factory=lambda: Sender("billing@acme.example", "Acme"))
    mails: list[Mail] = field(default_factory=list)
    tags: list[Mapping[str, str]] = field(default_factory=list)
    """Tags of each mail."""
    calls: int = 0
    clears: Mapping[str, Cleared] = field(default_factory=dict)
    """Results of removing an address from its suppression list; UNKNOWN for others."""
    cleared: list[str] = field(default_factory=list)

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:
        self.mails.append(mail)
        self.tags.append(tags)
        return self.outcome

    def clear_suppression(self, email: str) -> Cleared:
        self.cleared.append(email)
        return self.clears.get(email, Cleared.UNKNOWN)

    def account_facts(self) -> AccountFacts:
        self.calls += 1
        return self.facts


@dataclass
class FakeProviderFactory:
    """Returns `account` for every config that can be decrypted, or raises `refusal`."""

    account: FakeAccount
    refusal: Exception | None = None
    opened: list[StoredConfig] = field(default_factory=list)
    since: list[datetime | None] = field(default_factory=list)

    def create(self, tenant_id: str, config: StoredConfig, since: datetime | None = None) -> FakeAccount:
        if self.refusal:
            raise self.refusal
        FakeConfigCipher().decrypt(tenant_id, config.provider, config.version, config.ciphertext)
        self.opened.append(config)
        self.since.append(since)
        return self.account


@dataclass
class FakeTrust:
    """A role's trust policy, correct by default."""

    is_correct: bool = True
    tried: list[RoleConfig] = field(default_factory=list)

    def refuses_foreign_external_id(self, config: RoleConfig) -> bool:
        self.tried.append(config)
        return self.is_correct


def external_ids() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"external-id-{next(numbers)}"


class FakeTemplates:
    """`ports.TemplateStore` in memory."""

    def __init__(self) -> None:
        self.published: list[str] = []

    def publish(self, template: str) -> str:
        self.published.append(template)
        return f"https://bucket.example/{len(self.published)}.json"


@dataclass
class Scene:
    """The provider API's dependencies and their fakes."""

    store: FakeStore
    account: FakeAccount
    provider_factory: FakeProviderFactory
    trust: FakeTrust
    clock: FakeClock
    telemetry: FakeTelemetry
    deps: ProviderDependencies

    @property
    def row(self) -> Provider:
        """Return the row of tenant acme."""
        return self.store.rows["acme"]

    def set_row(self, **fields: Any) -> None:
        """Change the row, as a concurrent writer would."""
        self.store.rows["acme"] = replace(self.row, revision=self.row.revision + 1, **fields)


def a_scene(*rows: Provider, allow_smtp: bool = False) -> Scene:
    account = FakeAccount(Sent("message-1"))
    store, provider_factory, trust, clock, telemetry = (
        FakeStore(*rows),
        FakeProviderFactory(account),
        FakeTrust(),
        FakeClock(),
        FakeTelemetry(),
    )
    deps = ProviderDependencies(
        store=store,
        statistics=FakeStatisticsTable(),
        config_cipher=FakeConfigCipher(),
        provider_factory=provider_factory,
        trust=trust,
        clock=clock,
        telemetry=telemetry,
        new_external_id=external_ids(),
        platform=PLATFORM,
        templates=FakeTemplates(),
        allow_smtp=allow_smtp,
    )
    return Scene(store, account, provider_factory, trust, clock, telemetry, deps)

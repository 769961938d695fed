"""The environment, read once and frozen."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

ALIAS = "live"
"""Of each function, as the template's `AutoPublishAlias` names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A function's settings from the template; a variable that a function does not get is empty."""

    platform_name: str
    allow_smtp: bool
    providers_table: str
    messages_table: str
    suppressions_table: str
    pacing_table: str
    feedback_table: str
    statistics_table: str
    send_queue_url: str
    dead_letter_queue_url: str
    send_event_source: str
    """Id of the event source that delivers the queue's messages to SendFunction."""
    queue_key_arn: str
    provider_key_arn: str
    sessions_table: str
    cache_key_arn: str
    """KMS key that derives the keys of SendFunction's caches; empty: what KMS and STS answer is not cached for long."""
    acting_roles: tuple[str, ...]
    """ARNs of the functions' roles that act as tenants; for ProvidersFunction only, which shows them to tenants."""
    attachments_bucket: str
    event_bus: str
    feedback_bus_arn: str
    """ARN of the event bus that tenants' rules send SES's events to; for ProvidersFunction only, which shows it to tenants."""
    producer_tenants_parameter: str
    """Name of the parameter in Systems Manager with the producers' tenants; empty if each producer may send for all."""
    send_timeout_seconds: int
    """Timeout of SendFunction: a worker older than this is dead."""
    send_threads: int
    """How many messages one invocation sends concurrently; also the size of its connection pools."""
    send_bytes: int
    """Bytes of raw messages that one invocation may hold in memory, derived from the function's memory: see `_bytes_in_progress`."""
    cache_sizes: "CacheSizes"
    send_concurrency: int
    """How many SendFunctions may run at once: they share what may be sent without a booking in the pacing table."""
    own_function: str
    """The name of this function with its alias: what SweepFunction invokes further ones by."""
    sweep_concurrency: int
    """How many SweepFunctions may run at once."""
    reputation_guard: str
    """`off`, `warn` or `pause`; StatisticsFunction's alone."""
    reputation_limits: str
    """See `domain.reputation.read_limits`."""
    ca_bundle: str
    """A PEM file of the certificate authorities to trust instead of Amazon's; empty on AWS."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "Settings":
        """Read the variables that `template.yaml` sets under `Globals` and on each function."""
        return cls(
            platform_name=env.get("PLATFORM_NAME", "Leadmetrics"),
            allow_smtp=env.get("ALLOW_SMTP", "false") == "true",
            providers_table=env.get("PROVIDERS_TABLE", ""),
            messages_table=env.get("MESSAGES_TABLE", ""),
            suppressions_table=env.get("SUPPRESSIONS_TABLE", ""),
            pacing_table=env.get("PACING_TABLE", ""),
            feedback_table=env.get("FEEDBACK_TABLE", ""),
            statistics_table=env.get("STATISTICS_TABLE", ""),
            send_queue_url=env.get("SEND_QUEUE_URL", ""),
            dead_letter_queue_url=env.get("DEAD_LETTER_QUEUE_URL", ""),
            send_event_source=env.get("SEND_EVENT_SOURCE", ""),
            queue_key_arn=env.get("QUEUE_KEY_ARN", ""),
            provider_key_arn=env.get("PROVIDER_KEY_ARN", ""),
            sessions_table=env.get("SESSIONS_TABLE", ""),
            cache_key_arn=env.get("CACHE_KEY_ARN", ""),
            acting_roles=tuple(filter(None, (env.get("SEND_ROLE_ARN"), env.get("PROVIDERS_ROLE_ARN")))),
            attachments_bucket=env.get("ATTACHMENTS_BUCKET", ""),
            event_bus=env.get("EVENT_BUS", ""),
            feedback_bus_arn=env.get("FEEDBACK_BUS_ARN", ""),
            producer_tenants_parameter=env.get("PRODUCER_TENANTS_PARAMETER", ""),
            send_timeout_seconds=int(env.get("SEND_TIMEOUT_SECONDS", "60")),
            send_threads=int(env.get("SEND_THREADS", "32")),
            send_bytes=_bytes_in_progress(memory := int(env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"))),
            cache_sizes=CacheSizes.of(memory),
            send_concurrency=int(env.get("SEND_CONCURRENCY", "10")),
            own_function=f"{env.get('AWS_LAMBDA_FUNCTION_NAME', '')}:{ALIAS}",
            sweep_concurrency=int(env.get("SWEEP_CONCURRENCY", "1")),
            reputation_guard=env.get("REPUTATION_GUARD", "off"),
            reputation_limits=env.get("REPUTATION_LIMITS", ""),
            ca_bundle=env.get("AWS_CA_BUNDLE", ""),
        )


_MIB = 1024 * 1024

_TAKEN = 320
"""MiB that messages in progress cannot use: 130 for the interpreter and its libraries, 100 for the bodies of a batch, and slack."""

_COPIES = 4
"""Memory of a message in progress, as a multiple of its raw size: its files, itself, and the request to SES in base64."""


def _bytes_in_progress(memory: int) -> int:
    """Return how many bytes of raw messages fit into a function of so many MiB; at least enough for one message."""
    return max(memory - _TAKEN - _cached(memory), _TAKEN // 8) * _MIB // _COPIES


def _cached(memory: int) -> int:
    """Return the MiB of a function's memory that are for caches: some of what is above a GiB."""
    return max(memory - 1024, 0) * 3 // 14


_CACHED_ANYWAY = 8
"""MiB for them out of the slack."""


@dataclass(frozen=True, slots=True)
class CacheSizes:
    """Bytes that the caches of tenants' secrets may take."""

    configs: int
    """Encrypted configs."""
    sessions: int
    """Sessions with roles."""

    @classmethod
    def of(cls, memory: int) -> "CacheSizes":
        """Share out what a function of so many MiB has."""
        fifth = (_cached(memory) + _CACHED_ANYWAY) * _MIB // 5
        return cls(configs=2 * fifth, sessions=3 * fifth)


@cache
def settings() -> Settings:
    """Return this process's settings."""
    return Settings.from_environment(os.environ)

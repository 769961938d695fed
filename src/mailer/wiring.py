"""The composition root: each dependency is built once per process, on first use. Nothing else creates a client.

What only some of the functions use is imported where it is built: each function pays for its modules alone when it starts.
"""

import secrets
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
from botocore.config import Config

from mailer.adapters.botocore_patches.connections import use_own_connections
from mailer.adapters.botocore_patches.json_objects import require_json_objects
from mailer.adapters.botocore_patches.payload_loggers import silence_payload_loggers
from mailer.adapters.botocore_patches.signing import sign_fast
from mailer.adapters.clock import SystemClock
from mailer.adapters.dynamodb.messages_table import SWEEP_SHARDS, DynamoMessagesTable
from mailer.adapters.dynamodb.pacing_table import DynamoPacingTable
from mailer.adapters.dynamodb.providers_table import DynamoProvidersTable
from mailer.adapters.dynamodb.suppressions_table import DynamoSuppressionsTable
from mailer.adapters.s3.attachments import S3Attachments
from mailer.adapters.s3.parked_bodies import S3ParkedBodies
from mailer.adapters.sqs.send_queue import SqsSendQueue
from mailer.adapters.sqs.signer import Signer
from mailer.adapters.transport import formats
from mailer.adapters.transport.direct_calls import call_directly
from mailer.domain.onboarding import Platform
from mailer.observability import LogTelemetry, logger
from mailer.ports import ConfigCipher, ProviderFactory
from mailer.settings import settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

    from mailer.adapters.dynamodb.feedback_table import DynamoFeedbackTable
    from mailer.adapters.dynamodb.provider_feedback import DynamoProviderFeedback
    from mailer.adapters.dynamodb.statistics_table import DynamoStatisticsTable
    from mailer.adapters.dynamodb.trials import DynamoTrials
    from mailer.adapters.events import EventBridgeBus
    from mailer.adapters.producer_rules import SsmProducerRules
    from mailer.adapters.providers.cache_keys import CacheKeys
    from mailer.adapters.providers.config_cache import ConfigReader
    from mailer.adapters.providers.credentials import AssumedRoles
    from mailer.adapters.providers.shared_cache import SharedCache
    from mailer.services.api.messages import MessagesDependencies
    from mailer.services.feedback.matching import FeedbackDependencies
    from mailer.services.pacing.pacing import Pacing
    from mailer.services.providers.providers import ProviderDependencies
    from mailer.services.sending.jobs import SendDependencies
    from mailer.services.statistics.guard import GuardDependencies
    from mailer.services.suppressions.lists import SuppressionDependencies
    from mailer.services.suppressions.reports import ReportDependencies
    from mailer.services.sweeping.dependencies import SweepDependencies

# ── our own AWS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _client(service: str, config: Config | None = None) -> Any:
    """Create a client for our own account; it retries, its pool is as large as the threads are many, its trust store is shared."""
    silence_payload_loggers()
    own = Config(
        connect_timeout=2,  # seconds
        read_timeout=5,  # seconds
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=settings().send_threads,
        user_agent="tenantmail",  # botocore would assemble its own from 30 pieces, twice for each call
        tcp_keepalive=True,
    )
    client = boto3.client(service, config=own.merge(config) if config else own)  # type: ignore[call-overload]  # the service is a variable
    use_own_connections(client, settings().ca_bundle)
    sign_fast(client)
    if service in _JSON_SERVICES:
        require_json_objects(client)
    return client


_JSON_SERVICES = frozenset({"dynamodb", "events", "kms", "sqs"})


@cache
def dynamodb() -> "DynamoDBClient":
    """Return the DynamoDB client."""
    client: DynamoDBClient = _client("dynamodb", _COMPILED)
    repeating = _client("dynamodb", _REPEATING)  # made now: threads that all need it at once would each make one, while the table fails
    call_directly(client, formats.DYNAMODB, again=lambda: repeating)
    return client


# The adapters compile their requests from tables of their own, and DynamoDB validates them too: botocore's validation is a tenth of a
# message's cost.
_COMPILED = Config(parameter_validation=False)
# The direct attempt was the first of three.
_REPEATING = Config(parameter_validation=False, retries={"mode": "standard", "total_max_attempts": 2})


def sqs() -> "SQSClient":
    """Return the SQS client."""
    client: SQSClient = _client("sqs")
    return client


def s3() -> "S3Client":
    """Return the S3 client."""
    client: S3Client = _client("s3", _PRESIGNING)
    return client


# For presigned URLs: by default those of us-east-1 have the old signature, which does not cover headers, and those of other regions name
# the global host, which redirects.
_PRESIGNING = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})


# ── shared by the functions ─────────────────────────────────────────────────────────────────────────────────────────────


@cache
def telemetry() -> LogTelemetry:
    """Return the telemetry."""
    return LogTelemetry(logger())


@cache
def clock() -> SystemClock:
    """Return the clock."""
    return SystemClock()


@cache
def messages_table() -> DynamoMessagesTable:
    """Return the status table."""
    return DynamoMessagesTable(dynamodb(), settings().messages_table, telemetry().failed, workers())


@cache
def feedback_table() -> "DynamoFeedbackTable":
    """Return SES's reports by recipient."""
    from mailer.adapters.dynamodb.feedback_table import DynamoFeedbackTable

    return DynamoFeedbackTable(dynamodb(), settings().feedback_table)


@cache
def send_queue() -> SqsSendQueue:
    """Return the send queue and its dead-letter queue."""
    return SqsSendQueue(sqs(), signer(), settings().send_queue_url, settings().dead_letter_queue_url)


@cache
def signer() -> Signer:
    """Return the signer of our queue messages; it calls KMS on first use."""
    return Signer(kms, settings().queue_key_arn, clock().now, telemetry().failed)


@cache
def parked_bodies() -> S3ParkedBodies:
    """Return the parked bodies."""
    return S3ParkedBodies(s3(), settings().attachments_bucket)


@cache
def providers_table() -> DynamoProvidersTable:
    """Return the provider rows."""
    return DynamoProvidersTable(dynamodb(), settings().providers_table, clock(), telemetry().failed)


@cache
def suppressions_table() -> DynamoSuppressionsTable:
    """Return the addresses that tenants' mail leaves out."""
    return DynamoSuppressionsTable(dynamodb(), settings().suppressions_table)


@cache
def provider_feedback() -> "DynamoProviderFeedback":
    """Return the marks that show whether SES's events arrive."""
    from mailer.adapters.dynamodb.provider_feedback import DynamoProviderFeedback

    return DynamoProviderFeedback(dynamodb(), settings().providers_table)


@cache
def pacing_table() -> DynamoPacingTable:
    """Return the rates of the sending accounts."""
    return DynamoPacingTable(dynamodb(), settings().pacing_table)


@cache
def attachments() -> S3Attachments:
    """Return the uploaded attachments."""
    return S3Attachments(s3(), settings().attachments_bucket)


@cache
def workers() -> Executor:
    """Return the thread pool for batches."""
    return ThreadPoolExecutor(settings().send_threads, thread_name_prefix="worker")


# ── acting as tenants ───────────────────────────────────────────────────────────────────────────────────────────────────


# `verify` has to answer within API Gateway's 29 s; sending is retried later anyway.
_IN_TIME = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})


def kms() -> "KMSClient":
    """Return the KMS client."""
    client: KMSClient = _client("kms", _IN_TIME)
    return client


def sts() -> "STSClient":
    """Return the STS client that assumes tenants' roles: of our own region, as ourselves."""
    client: STSClient = _client("sts", _IN_TIME)
    return client


@cache
def config_cipher() -> ConfigCipher:
    """Return the cipher for configs."""
    from mailer.adapters.providers.encryption import KmsConfigCipher

    return KmsConfigCipher(settings().provider_key_arn, kms())


@cache
def cache_keys() -> "CacheKeys | None":
    """Return the keys of what is cached of tenants; None for a function that caches nothing for long."""
    from mailer.adapters.providers.cache_keys import CacheKeys

    return CacheKeys(kms, settings().cache_key_arn, clock().now) if settings().cache_key_arn else None


@cache
def shared_cache() -> "SharedCache | None":
    """Return what the function's sandboxes share."""
    from mailer.adapters.dynamodb.sessions_table import DynamoSessionsTable
    from mailer.adapters.providers.shared_cache import SharedCache

    keys, table = cache_keys(), settings().sessions_table
    return SharedCache(DynamoSessionsTable(dynamodb(), table), keys, clock().now, telemetry().failed) if keys else None


@cache
def config_reader() -> "ConfigReader":
    """Return what decrypts the configs of rows."""
    from mailer.adapters.providers.config_cache import ConfigCache, UncachedConfigs

    keys = cache_keys()
    if keys is None:
        return UncachedConfigs(config_cipher())
    size = settings().cache_sizes.configs
    return ConfigCache(config_cipher(), keys, clock().now, shared=shared_cache(), size=size, report=telemetry().failed)


@cache
def assumed_roles() -> "AssumedRoles":
    """Return the sessions with tenants' roles."""
    from mailer.adapters.providers.credentials import AssumedRoles

    us = platform()
    size = settings().cache_sizes.sessions
    return AssumedRoles(sts, own_account=us.account, platform=us.name, clock=clock(), shared=shared_cache(), size=size)


@cache
def platform() -> Platform:
    """Return the platform as tenants see it; its account is taken from the key's ARN."""
    return Platform.of(settings().platform_name, settings().provider_key_arn, settings().acting_roles, settings().feedback_bus_arn)


@cache
def provider_factory() -> ProviderFactory:
    """Return the factory of tenants' providers."""
    from mailer.adapters.providers.acting import TenantClients
    from mailer.adapters.providers.provider_factory import TenantProviderFactory

    ca_bundle = settings().ca_bundle
    clients = TenantClients(width=settings().send_threads, ca_bundle=ca_bundle)
    inquiries = TenantClients(width=1, ca_bundle=ca_bundle, connect_timeout=2, read_timeout=3)  # seconds; `verify` answers within 29
    return TenantProviderFactory(
        config_reader(),
        assumed_roles(),
        clients,
        inquiries,
        allow_smtp=settings().allow_smtp,
        clock=clock(),
        report=lambda kept: telemetry().config_requested(cached=kept),
    )


# ── ProvidersFunction ───────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def provider_dependencies() -> "ProviderDependencies":
    """Return the dependencies of the provider API."""
    from mailer.adapters.s3.onboarding_templates import S3OnboardingTemplates
    from mailer.services.providers.providers import ProviderDependencies

    return ProviderDependencies(
        store=providers_table(),
        statistics=statistics_table(),
        config_cipher=config_cipher(),
        provider_factory=provider_factory(),
        trust=assumed_roles(),
        clock=clock(),
        telemetry=telemetry(),
        new_external_id=lambda: secrets.token_urlsafe(32),
        platform=platform(),
        templates=S3OnboardingTemplates(s3, settings().attachments_bucket),
        allow_smtp=settings().allow_smtp,
    )


@cache
def suppression_dependencies() -> "SuppressionDependencies":
    """Return everything that the suppressions API needs."""
    from mailer.services.suppressions.lists import SuppressionDependencies

    return SuppressionDependencies(
        suppressions=suppressions_table(),
        marks=providers_table(),
        providers=providers_table(),
        provider_factory=provider_factory(),
        clock=clock(),
        workers=workers(),
    )


# ── SendFunction ────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def pacer() -> "Pacing":
    """Return the pacer of the sending accounts."""
    from mailer.services.pacing.pacing import Pacing

    return Pacing(pacing_table(), functions=settings().send_concurrency)


@cache
def trials() -> "DynamoTrials":
    """Return the marks of messages that are tried alone."""
    from mailer.adapters.dynamodb.trials import DynamoTrials

    return DynamoTrials(dynamodb(), settings().messages_table)


@cache
def producer_rules() -> "SsmProducerRules":
    """Return the rules for producers."""
    from mailer.adapters.producer_rules import SsmProducerRules

    return SsmProducerRules(lambda: _client("ssm"), settings().producer_tenants_parameter, clock().now, telemetry().failed)


@cache
def send_dependencies() -> "SendDependencies":
    """Return the dependencies of sending."""
    from mailer.services.sending.byte_budget import ByteBudget
    from mailer.services.sending.jobs import SendDependencies

    return SendDependencies(
        providers=providers_table(),
        suppressions=suppressions_table(),
        provider_factory=provider_factory(),
        messages=messages_table(),
        queue=send_queue(),
        parked=parked_bodies(),
        attachments=attachments(),
        telemetry=telemetry(),
        clock=clock(),
        pacer=pacer(),
        trials=trials(),
        producers=producer_rules(),
        workers=workers(),
        budget=ByteBudget(settings().send_bytes),
        new_owner=lambda: uuid4().hex,
        send_timeout=timedelta(seconds=settings().send_timeout_seconds),
    )


# ── MessagesFunction ────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def messages_dependencies() -> "MessagesDependencies":
    """Return the dependencies of the messages API."""
    from mailer.services.api.messages import MessagesDependencies

    return MessagesDependencies(
        providers=providers_table(),
        suppressions=suppressions_table(),
        messages=messages_table(),
        feedback=feedback_table(),
        queue=send_queue(),
        parked=parked_bodies(),
        attachments=attachments(),
        uploads=attachments(),
        telemetry=telemetry(),
        clock=clock(),
        workers=workers(),
        send_timeout=timedelta(seconds=settings().send_timeout_seconds),
    )


# ── SweepFunction ───────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def sweep_dependencies() -> "SweepDependencies":
    """Return the dependencies of the sweeper."""
    from mailer.adapters.dynamodb.sweep_leases import DynamoSweepLeases
    from mailer.adapters.event_source import LambdaEventSource
    from mailer.adapters.sweep_invocations import LambdaSweepInvocations
    from mailer.services.sweeping.dependencies import SweepDependencies

    functions = _client("lambda")
    return SweepDependencies(
        releases=providers_table(),
        providers=providers_table(),
        account_rates=pacing_table(),
        messages=messages_table(),
        queue=send_queue(),
        event_source=LambdaEventSource(functions, settings().send_event_source),
        parked=parked_bodies(),
        telemetry=telemetry(),
        clock=clock(),
        workers=workers(),
        invocations=LambdaSweepInvocations(functions, settings().own_function),
        leases=DynamoSweepLeases(dynamodb(), settings().pacing_table),
        new_owner=lambda: uuid4().hex,
        shards=SWEEP_SHARDS,
        concurrency=settings().sweep_concurrency,
    )


# ── FeedbackFunction ────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def feedback_dependencies() -> "FeedbackDependencies":
    """Return everything that feedback needs."""
    from mailer.services.feedback.matching import FeedbackDependencies
    from mailer.services.feedback.proving import ProviderListener
    from mailer.services.suppressions.reports import take_event

    return FeedbackDependencies(
        messages=messages_table(),
        feedback=feedback_table(),
        parked=parked_bodies(),
        telemetry=telemetry(),
        clock=clock(),
        listeners=(ProviderListener(providers_table(), provider_feedback(), clock()),),
        reactions=[lambda accepted: take_event(accepted.event, accepted.mail, report_dependencies())],
    )


@cache
def report_dependencies() -> "ReportDependencies":
    """Return everything that suppressing what SES reports needs."""
    from mailer.services.suppressions.reports import ReportDependencies

    return ReportDependencies(suppressions=suppressions_table(), marks=providers_table())


# ── PublishFunction ─────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def event_bus() -> "EventBridgeBus":
    """Return the event bus that other systems subscribe to."""
    from mailer.adapters.events import EventBridgeBus

    return EventBridgeBus(_client("events"), settings().event_bus)


# ── StatisticsFunction ──────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def statistics_table() -> "DynamoStatisticsTable":
    """Return the statistics."""
    from mailer.adapters.dynamodb.statistics_table import DynamoStatisticsTable

    return DynamoStatisticsTable(dynamodb(), settings().statistics_table)


@cache
def guard_dependencies() -> "GuardDependencies":
    """Return everything that the reputation guard needs."""
    from mailer.domain.reputation import read_limits
    from mailer.services.statistics.guard import GuardDependencies

    mode: Any = settings().reputation_guard
    return GuardDependencies(
        mode=mode,
        limits=read_limits(settings().reputation_limits),
        statistics=statistics_table(),
        providers=providers_table(),
        telemetry=telemetry(),
        clock=clock(),
    )

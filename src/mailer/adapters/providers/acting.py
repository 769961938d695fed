"""Act as a tenant: AWS clients that all tenants share, with credentials that are bound to the call, not to a client.

    with acting_as(credentials):
        clients.ses("eu-west-1").send_raw_email(...)

The sessions of these clients have no credential chain: outside such a block a call fails instead of using the environment, a profile or
the function's own role.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Literal, cast

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.session import Session

from mailer.adapters.botocore_patches import raw_content, raw_message
from mailer.adapters.botocore_patches.connections import use_own_connections
from mailer.adapters.botocore_patches.payload_loggers import silence_payload_loggers
from mailer.adapters.botocore_patches.signing import sign_fast
from mailer.adapters.single_flight_cache import SingleFlightCache
from mailer.adapters.transport import formats
from mailer.adapters.transport.direct_calls import call_directly

if TYPE_CHECKING:
    from mypy_boto3_ses import SESClient
    from mypy_boto3_sesv2 import SESV2Client
    from mypy_boto3_sts import STSClient

CONNECT_TIMEOUT = 3.0
"""Seconds, for the connection and again for the TLS handshake."""

READ_TIMEOUT = 10.0
"""Seconds without a byte of the answer."""

_USER_AGENT = "tenantmail"
"""The user agent, shown in a tenant's CloudTrail; botocore would assemble its own from 30 pieces, twice for each call."""

_CLIENTS_KEPT = 64
"""More than there are regions; a limit in case configs name regions that do not exist."""

_ACTING: ContextVar[ReadOnlyCredentials] = ContextVar("acting")


class NotActingError(RuntimeError):
    """A tenant's client was called outside `acting_as`; nothing was signed and nothing was sent."""


@contextmanager
def acting_as(credentials: ReadOnlyCredentials) -> Iterator[None]:
    """Sign this thread's calls inside the block with these credentials; threads that it starts do not inherit them."""
    token = _ACTING.set(credentials)
    try:
        yield
    finally:
        _ACTING.reset(token)


class _BoundCredentials:
    """The clients' credentials object for botocore: asked once per signature, it returns the credentials that the thread acts with."""

    method = "tenant"

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the credentials of the call.

        Raises:
            NotActingError: there are none.
        """
        try:
            return _ACTING.get()
        except LookupError:
            raise NotActingError("no tenant to act as: the call is outside `acting_as`, or in another thread") from None

    def get_deferred_property(self, name: str) -> None:
        """Tell botocore's endpoint rules that endpoints do not depend on the credentials."""


class _NoChain:
    """Replaces botocore's chain of credential providers (environment, profiles, container, instance)."""

    def load_credentials(self) -> _BoundCredentials:
        return _BoundCredentials()


class TenantClients:
    """One client per service and region for all tenants, created on first use; `width` is the number of threads that share them.

    Each call is one attempt: botocore's retries would send the same mail again after a read timeout.
    """

    def __init__(
        self, *, width: int, ca_bundle: str | None = None, connect_timeout: float = CONNECT_TIMEOUT, read_timeout: float = READ_TIMEOUT
    ) -> None:
        silence_payload_loggers()
        self._ca_bundle = ca_bundle
        self._config = Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=width,  # with fewer than threads, connections would be thrown away after each call
            retries={"total_max_attempts": 1, "mode": "standard"},
            user_agent=_USER_AGENT,
        )
        self._clients: SingleFlightCache[tuple[str, str], BaseClient] = SingleFlightCache(_CLIENTS_KEPT, lambda: datetime.now(UTC))
        self._session: boto3.Session | None = None
        self._making = Lock()  # creating clients from a botocore session is not thread-safe

    def ses(self, region: str) -> "SESClient":
        """Return the SES v1 client of a region."""
        return cast("SESClient", self._client("ses", region))

    def sesv2(self, region: str) -> "SESV2Client":
        """Return the SES v2 client of a region: for GetAccount, the suppression list, and mails that v1 does not take."""
        return cast("SESV2Client", self._client("sesv2", region))

    def sts(self, region: str) -> "STSClient":
        """Return the STS client of a region that acts as the tenant; only for GetCallerIdentity."""
        return cast("STSClient", self._client("sts", region))

    def _client(self, service: Literal["ses", "sesv2", "sts"], region: str) -> BaseClient:
        return self._clients.get((service, region), lambda: self._make(service, region))

    def _make(self, service: Literal["ses", "sesv2", "sts"], region: str) -> BaseClient:
        with self._making:
            if self._session is None:
                session = Session()
                session.register_component("credential_provider", _NoChain())
                self._session = boto3.Session(botocore_session=session)
            client: BaseClient = self._session.client(service, region_name=region, config=self._config)
        use_own_connections(client, self._ca_bundle)
        sign_fast(client)
        if service == "ses":
            raw_message.encode_fast(client)
            call_directly(client, formats.SES)
        if service == "sesv2":
            raw_content.encode_fast(client)
        return client

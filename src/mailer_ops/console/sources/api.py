"""Client of the REST API, signed with the credentials that the AWS SDK finds."""

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import botocore.session
from botocore.exceptions import NoCredentialsError
from botocore.httpsession import URLLib3Session

from mailer_client.connection import Connection
from mailer_ops.console.sources.answers import Answer, Trouble, ask

type Json = dict[str, Any]


class Api(Protocol):
    """The REST API of one stack."""

    url: str
    region: str

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer[Any]:
        """Call a route; return its JSON or the trouble."""
        ...


class SignedApi:
    """The API, with the credentials of a boto3 session."""

    def __init__(self, url: str, stack: str, session: botocore.session.Session | None = None) -> None:
        session = session or botocore.session.get_session()
        self.url = url.rstrip("/")
        self.region = str(session.get_config_variable("region") or "")
        self._stack = stack
        self._credentials = session.get_credentials()
        self._connection = Connection(
            url=self.url, region=self.region, credentials=self._credentials, transport=URLLib3Session(timeout=30, max_pool_connections=16)
        )

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer[Any]:
        """Call a route; return its JSON or the trouble."""
        return ask(lambda: self._call(method, path + query_of(query), body), self._stack, what=f"{method} {path}")

    def _call(self, method: str, path: str, body: Any) -> Any:
        if self._credentials is None:
            raise NoCredentialsError
        return self._connection.call(method, path, body)


def path_of(tenant_id: str, *steps: str) -> str:
    """Return the path of a tenant's resource."""
    return "/".join(["/tenants", *(quote(step, safe=":") for step in (tenant_id, *steps))])


def query_of(query: Mapping[str, Any]) -> str:
    """Return a query of the set parameters, or an empty text."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def without_route(answer: Answer[Any], what: str) -> Answer[Any]:
    """Report a missing list as unsupported by the deployed version: a list that exists may be empty, but is never missing."""
    if answer.trouble and answer.trouble.kind == "missing":
        text = f"The deployed version of the service has no {what}."
        return Answer(trouble=Trouble(kind="missing", text=text, hint="Operator: deploy a later version."))
    return answer

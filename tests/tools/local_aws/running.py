"""A running local AWS with the deployed stack, for tests, the demo and `make up`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import botocore.session

from mailer_client import MailClient
from tools.local_aws.api import Api
from tools.local_aws.control import Control
from tools.local_aws.server import REGION, ROOT, START, Addresses
from tools.local_aws.stack import Stack, build, deploy, platform_session
from tools.local_aws.tenants import Tenant, Tenants

POLL = 0.05  # seconds
ALL_SERVICES = ("kms", "sts", "dynamodb", "sqs", "s3", "events")

type Step = Callable[[str], AbstractContextManager[object]]


class NotStartedError(Exception):
    """The local AWS did not start; the text names the logs."""


class LocalAws:
    """Addresses and clients of a local AWS."""

    def __init__(self, directory: Path, addresses: Addresses, stack: Stack) -> None:
        self.directory = directory
        self.addresses = addresses
        self.stack = stack
        self.control = Control(addresses.control)
        self.api = Api(stack.api_url)
        self.tenants = Tenants(addresses)
        keys = platform_session().get_credentials()
        assert keys
        self.mail = self.mail_client(keys.access_key, keys.secret_key)
        """Client of the messages API, with the platform's credentials, which may use any tenant."""
        self._clients: dict[str, Any] = {}

    def mail_client(self, access_key: str, secret_key: str) -> MailClient:
        """Return a client of the messages API with an access key."""
        session = botocore.session.Session()
        session.set_credentials(access_key, secret_key)
        return MailClient(self.stack.api_url, region=REGION, session=session)

    def client(self, service: Any) -> Any:
        """Return the platform's client of a service, which bypasses the fault proxies; cached."""
        if service not in self._clients:
            self._clients[service] = platform_session().client(service, endpoint_url=self.addresses.aws)
        return self._clients[service]

    def enqueue(self, body: str, **more: Any) -> str:
        """Put a message on the send queue, as producers do; return SQS's message id."""
        answer = self.client("sqs").send_message(QueueUrl=self.stack.outputs["SendQueueUrl"], MessageBody=body, **more)
        return str(answer["MessageId"])

    def enqueue_request(self, request: dict[str, Any], **more: Any) -> str:
        """Put a send request on the queue as documented: ASCII JSON, in the tenant's message group."""
        return self.enqueue(json.dumps(request), MessageGroupId=request["tenantId"], **more)

    def sweep(self) -> None:
        """Run the deployed SweepFunction now, without waiting for its schedule; raise RuntimeError if it fails."""
        name = self.stack.function_name(self.addresses.aws, "SweepFunction")
        answer = self.client("lambda").invoke(FunctionName=name, Payload=b"{}")
        if "FunctionError" in answer:
            raise RuntimeError(answer["Payload"].read().decode())

    def dead_letters(self, at_least: int = 1, seconds: float = 20.0) -> list[dict[str, Any]]:
        """Receive and delete messages of the dead-letter queue until there are `at_least` or the time is over."""
        deadline = time.monotonic() + seconds
        letters: list[dict[str, Any]] = []
        while len(letters) < at_least and (left := deadline - time.monotonic()) > 0:
            letters += self._receive_dead_letters(min(20, int(left) + 1))
        return letters

    def active_tenant(self, tenant_id: str = "", **account: Any) -> Tenant:
        """Create an account, store its config through the API and verify it."""
        tenant = self.tenants.open(tenant_id, **account)
        stored = self.api.put_provider(tenant.tenant_id, tenant.provider())
        verified = self.api.verify(tenant.tenant_id)
        assert (stored.status, verified.status) == (200, 200), (stored.body, verified.body)
        return tenant

    def tenant_with_feedback(
        self,
        tenant_id: str = "",
        *,
        by_role: bool = False,
        feedback: str = "all",
        config: Mapping[str, Any] = MappingProxyType({}),
        **account: Any,
    ) -> Tenant:
        """Create an account, launch the onboarding template in it, store a config with its configuration set and `config`, verify it."""
        tenant = self.tenants.open(tenant_id, **account)
        template = self.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"]
        made = self.tenants.launch(tenant, template, CreateRole=str(by_role).lower(), Feedback=feedback)
        own = {**config, "configurationSet": made["ConfigurationSet"]}
        provider = tenant.provider_by_role(made["RoleArn"], **own) if by_role else tenant.provider(**own)
        stored = self.api.put_provider(tenant.tenant_id, provider)
        verified = self.api.verify(tenant.tenant_id)
        assert (stored.status, verified.status) == (200, 200), (stored.body, verified.body)
        return tenant

    def _receive_dead_letters(self, wait: int) -> list[dict[str, Any]]:
        url, sqs = self.stack.outputs["DeadLetterQueueUrl"], self.client("sqs")
        messages: list[dict[str, Any]] = sqs.receive_message(
            QueueUrl=url, WaitTimeSeconds=wait, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return messages


@contextmanager
def local_aws(
    directory: Path,
    front: tuple[str, ...] = ALL_SERVICES,
    step: Step = lambda _: nullcontext(),
    parameters: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[LocalAws]:
    """Run a local AWS on free ports with the stack deployed, until the block ends or this process dies.

    `step` is called with the name of each stage, to show progress; `parameters` are given to the stack beside `stack.PARAMETERS`.
    """
    server = start_server(directory, front=front, with_parent=True)
    try:
        with step("building the template (sam build)"):
            template = build()
        with step("starting the local AWS"):
            addresses = wait_for_server(directory, server)
        with step("deploying (sam deploy)"):
            stack = deploy(addresses, template, parameters)
        yield LocalAws(directory, addresses, stack)
    finally:
        assert server.stdin
        server.stdin.close()
        server.wait()


def start_server(directory: Path, *, port: int = 0, front: tuple[str, ...] = (), with_parent: bool = False) -> subprocess.Popen[bytes]:
    """Start the server process; it runs as long as this one (`with_parent`) or until it is stopped by its pid."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "server.json").unlink(missing_ok=True)
    options = ["--directory", str(directory), "--port", str(port), "--front", ",".join(front), *(["--with-parent"] if with_parent else [])]
    with (directory / "server.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tools.local_aws.server", *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            stdin=subprocess.PIPE if with_parent else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_for_server(directory: Path, server: subprocess.Popen[bytes]) -> Addresses:
    """Wait until the server has written its addresses."""
    deadline = time.monotonic() + START
    while not (addresses := Addresses.read(directory)):
        if server.poll() is not None or time.monotonic() > deadline:
            reason = (directory / "server.log").read_text().strip().rpartition("\n")[2]
            raise NotStartedError(f"the local AWS did not start: {reason or 'no answer in time'} (see the logs in {directory})")
        time.sleep(POLL)
    return addresses

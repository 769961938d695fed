"""Serve the console on 127.0.0.1 only, for the stack that `stack.use_stack` has found."""

import os
import socket
import sys
import threading
import webbrowser
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import uvicorn

from mailer_ops.adapters.outcome_log import CloudWatchLog
from mailer_ops.console.app import create_app
from mailer_ops.console.sources.answers import ask
from mailer_ops.console.sources.api import SignedApi
from mailer_ops.console.sources.dead_letters import StackDeadLetters
from mailer_ops.console.sources.health import AwsHealth
from mailer_ops.console.sources.mails import LocalMails
from mailer_ops.console.sources.requests import CloudWatchRequestLog
from mailer_ops.console.web import Place, Sources
from mailer_ops.stack import RECORDING, CommandError, client, dead_letter_deps, resources

HOST = "127.0.0.1"
PORT = 4567
RUNBOOK = Path(__file__).resolve().parents[3] / "docs/runbook.md"
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_QUEUES = {
    "Send queue": "SendQueue",
    "Feedback queue": "FeedbackQueue",
    "Dead letters": "DeadLetterQueue",
    "Feedback dead letters": "FeedbackDeadLetterQueue",
}


def serve(stack: str, *, port: int = PORT, opens_browser: bool = True) -> None:
    """Serve until Ctrl-C.

    Raises:
        CommandError: the port is taken, or may not be used.
    """
    with closing(_listen(port)) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        app = create_app(sources(stack), listener.getsockname()[1])
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=2)
        )
        sys.stdout.write(f"The console of {stack}: {address}\nCtrl-C stops it.\n")
        sys.stdout.flush()
        if opens_browser:
            threading.Timer(0.3, webbrowser.open, [address]).start()
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # now, so that a browser that is faster than the server waits for it
    except OSError as fault:
        listener.close()
        raise CommandError(f"Port {port} cannot be used ({fault.strerror}): choose another with CONSOLE_PORT=….") from None
    return listener


def sources(stack: str) -> Sources:
    """Create all sources, with the credentials that the AWS SDK finds."""
    made = resources(stack)
    groups = [made[name] for name in RECORDING if name in made]
    queues = {name: made[queue] for name, queue in _QUEUES.items() if queue in made}
    inbox = os.environ.get("TENANTMAIL_INBOX", "")
    return Sources(
        place=_place(stack),
        api=SignedApi(os.environ["API_URL"], stack),
        health=AwsHealth(stack, queues, client),
        requests=CloudWatchRequestLog(stack, CloudWatchLog(client("logs"), groups)),
        dead_letters=StackDeadLetters(stack, lambda: dead_letter_deps(stack)),
        mails=LocalMails(inbox) if inbox else None,
        runbook=RUNBOOK.read_text(encoding="utf-8") if RUNBOOK.is_file() else "",
    )


def _place(stack: str) -> Place:
    who = ask(client("sts").get_caller_identity, stack).value or {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    return Place(
        stack=stack,
        region=boto3.Session().region_name or "",
        account=who.get("Account", ""),
        identity=who.get("Arn", ""),
        is_local=urlsplit(endpoint).hostname in _LOCAL,
    )

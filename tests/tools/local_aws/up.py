"""Keep a local AWS running: `make up`, again after a change to deploy it; `make tenant NAME=acme`; `make down` stops it.

    python -m tools.local_aws up [--port 4566] [--smtp HOST:PORT]
    python -m tools.local_aws tenant NAME
    python -m tools.local_aws down

Its files are in `.local/up`, separate from those of the tests. With `--smtp`, accepted mail also goes to that inbox (for example Mailpit).
"""

import argparse
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mailer.domain.message import TENANT_ID
from tools.local_aws import console_process
from tools.local_aws.console_process import NoConsoleError
from tools.local_aws.running import LocalAws, NotStartedError, start_server, wait_for_server
from tools.local_aws.server import PLATFORM, ROOT, Addresses
from tools.local_aws.stack import SamError, Stack, build, deploy, deployed
from tools.local_aws.tenants import Tenant
from tools.local_aws.terminal import console

DIRECTORY = ROOT / ".local/up"
PORT = 4566


def bring_up(console: Console, port: int = PORT) -> LocalAws:
    """Start the local AWS unless it runs, and deploy the work tree unless it is deployed; on a failure, stop a server started here."""
    addresses = Addresses.read(DIRECTORY)
    server = None
    if not addresses:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        server = start_server(DIRECTORY, port=port)
    try:
        return _bring_up(console, addresses, server)
    except BaseException:
        if server:
            server.terminate()
            server.wait()
        raise


def _bring_up(console: Console, addresses: Addresses | None, server: subprocess.Popen[bytes] | None) -> LocalAws:
    with console.status("building the template (sam build) …") as status:
        template = build()
        if server:
            status.update("waiting for the local AWS …")
            addresses = wait_for_server(DIRECTORY, server)
        assert addresses
        status.update("deploying (sam deploy) …")
        return LocalAws(DIRECTORY, addresses, _deploy(addresses, template))


def stop() -> bool:
    """Stop the local AWS; return whether it ran."""
    addresses = Addresses.read(DIRECTORY)
    if not addresses:
        return False
    console_process.stop(DIRECTORY)
    addresses.server.stop()
    addresses.ministack.stop(group=True)  # if its parent was killed
    return True


def running() -> LocalAws | None:
    """Return the local AWS that `make up` has started, with its stack."""
    addresses = Addresses.read(DIRECTORY)
    stack = deployed(addresses) if addresses else None
    return LocalAws(DIRECTORY, addresses, stack) if addresses and stack else None


def exports(aws: LocalAws) -> dict[str, str]:
    """Return the variables for the Makefile's commands, the AWS CLI, the SDKs and the README's samples."""
    return {
        **PLATFORM,
        "AWS_ENDPOINT_URL": aws.addresses.aws,
        "TENANTMAIL_API": aws.stack.api_url,
        "TENANTMAIL_QUEUE": aws.stack.outputs["SendQueueUrl"],
        "TENANTMAIL_INBOX": aws.addresses.control,
    }


def describe(console: Console, aws: LocalAws, page: str) -> None:
    """Print the exports to paste into a shell, the next commands, and the paths of mails and logs."""
    console.print("The local AWS is up. Paste this into the shell that you work in:\n")
    for name, value in exports(aws).items():
        _line(console, f"export {name}={shlex.quote(value)}")
    console.print(
        "\nmake tenant NAME=acme   a tenant that can send; shows how to\nmake help               the operators' commands, and all others"
    )
    console.print("make up                 deploys what you have changed since\nmake down               stops it all\n")
    _line(console, f"Console         {page}")
    _line(console, f"Accepted mail   {_short(Path(aws.addresses.mail))}/*.eml")
    _line(console, f"Logs            {_short(aws.directory)}/*.log, and CloudWatch Logs")
    _line(console, f"Faults in SES   {aws.addresses.control} (tests/tools/local_aws/control.py)")


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _deploy(addresses: Addresses, template: Path) -> Stack:
    mark = DIRECTORY / "deployed"
    stack = deployed(addresses) if mark.exists() and mark.read_text() == str(template) else None
    if not stack:
        mark.unlink(missing_ok=True)
        stack = deploy(addresses, template)
        mark.write_text(str(template))
    return stack


# ── a tenant ────────────────────────────────────────────────────────────────────────────────────────────────────────────

HELLO = """{
  "requestId": "hello-1",
  "message": {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hello, Jo."}
}"""


def set_up_tenant(aws: LocalAws, tenant_id: str) -> Tenant | None:
    """Create an AWS account for a tenant, store its config and verify it; return None if it can send already."""
    known = aws.api.provider(tenant_id)
    if known.status == 200 and known.body["status"] == "active":
        return None
    return aws.active_tenant(tenant_id)


def describe_tenant(console: Console, aws: LocalAws, tenant_id: str, tenant: Tenant | None) -> None:
    """Print how to send a mail of the tenant, and where to find it."""
    if tenant:
        console.print(f"{tenant_id} can send: its config is stored, verified and active.\n", soft_wrap=True, markup=False)
        _line(console, f"AWS account   {tenant.account}, the IAM user mail in it may ses:SendRawEmail")
        _line(console, f"From          {tenant.from_name} <{tenant.from_address}>, a verified identity")
        _line(console, f"Access key    {tenant.access_key}\n")
    else:
        console.print(f"{tenant_id} can send already.\n", soft_wrap=True, markup=False)
    console.print("Send a mail, and read what became of it (with the exports of `make up`):\n")
    _line(console, f"make ask DO=\"POST /tenants/{tenant_id}/messages\" BODY=- <<'END'\n{HELLO}\nEND")
    _line(console, f'make ask DO="GET /tenants/{tenant_id}/messages/hello-1"')
    _line(console, f'\nIts .eml, named by its number and messageId:\n\nls "{_short(Path(aws.addresses.mail))}"')


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _inbox(text: str) -> tuple[str, int] | None:
    """Read HOST:PORT; an empty text, as the Makefile gives it without SMTP=…, names none."""
    host, _, port = text.rpartition(":")
    if text and not (host and port.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return (host, int(port)) if text else None


def up(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="local_aws up")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--smtp", type=_inbox, metavar="HOST:PORT")
    given = parser.parse_args(arguments)
    screen = console()
    try:
        aws = bring_up(screen, given.port)
        page = console_process.start(DIRECTORY, exports(aws))
    except (SamError, NotStartedError, NoConsoleError) as error:
        screen.print(str(error), style="red", markup=False)
        return 1
    if given.smtp:
        aws.control.relay_to(*given.smtp)
    describe(screen, aws, page)
    return 0


def down(arguments: Sequence[str]) -> int:
    argparse.ArgumentParser(prog="local_aws down").parse_args(arguments)
    console().print("stopped" if stop() else "nothing was running")
    return 0


def tenant(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="local_aws tenant")
    parser.add_argument("name", help="the tenant's id, such as acme")
    name = parser.parse_args(arguments).name
    screen, aws = console(), running()
    if not re.fullmatch(TENANT_ID, name):
        screen.print("Name the tenant: make tenant NAME=acme. A name has letters, digits, _ and -, at most 64.")
        return 2
    if aws is None:
        screen.print("No local AWS is running: make up starts it.")
        return 2
    describe_tenant(screen, aws, name, set_up_tenant(aws, name))
    return 0

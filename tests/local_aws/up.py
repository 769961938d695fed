"""Keep a local AWS running: `make up`, and again after a change to deploy it; `make down` ends it.

    python -m local_aws.up up [--port 4566] [--smtp HOST:PORT]
    python -m local_aws.up down

It lies in `.local/up`, apart from those that tests start. With `--smtp`, accepted mail also goes to that inbox (Mailpit and its like).
"""

import argparse
import shutil
import sys
from pathlib import Path

from rich.console import Console

from local_aws.running import LocalAws, NotStartedError, start_server, wait_for_server
from local_aws.server import PLATFORM, ROOT, Addresses
from local_aws.stack import SamError, Stack, build, deploy, deployed

DIRECTORY = ROOT / ".local/up"
PORT = 4566


def up(console: Console, port: int = PORT) -> LocalAws:
    """Start the local AWS unless it runs, deploy what is in the work tree unless it stands there."""
    addresses = Addresses.read(DIRECTORY)
    with console.status("") as status:
        server = None
        if not addresses:
            shutil.rmtree(DIRECTORY, ignore_errors=True)
            server = start_server(DIRECTORY, port=port)
        status.update("building the template (sam build) …")
        template = build()
        if server:
            status.update("waiting for the local AWS …")
            addresses = wait_for_server(DIRECTORY, server)
        assert addresses
        status.update("deploying (sam deploy) …")
        return LocalAws(DIRECTORY, addresses, _deploy(addresses, template))


def down() -> bool:
    """Stop the local AWS; say whether one ran."""
    addresses = Addresses.read(DIRECTORY)
    if not addresses:
        return False
    addresses.server.stop()
    addresses.ministack.stop(group=True)  # should its parent have been killed
    return True


def describe(console: Console, aws: LocalAws) -> None:
    """Print where everything is."""
    outputs = aws.stack.outputs
    rows = {
        "API (sign for execute-api)": aws.stack.api_url,
        "send queue": outputs["SendQueueUrl"],
        "dead-letter queue": outputs["DeadLetterQueueUrl"],
        "AWS endpoint": aws.addresses.aws,
        "credentials": " ".join(f"{name}={value}" for name, value in PLATFORM.items()),
        "SES, and faults in it": f"{aws.addresses.services['ses']}, {aws.addresses.control}",
        "accepted mail": f"{aws.addresses.mail}/*.eml",
        "logs": f"{aws.directory}/*.log, and CloudWatch Logs",
    }
    console.print("[bold]The local AWS is up[/bold]")
    for name, value in rows.items():
        console.print(f"  {name:<26}  {value}", soft_wrap=True)
    console.print("stop it with [bold]make down[/bold]; [bold]make up[/bold] again deploys what you changed")


def _deploy(addresses: Addresses, template: Path) -> Stack:
    mark = DIRECTORY / "deployed"
    stack = deployed(addresses) if mark.exists() and mark.read_text() == str(template) else None
    if not stack:
        stack = deploy(addresses, template)
        mark.write_text(str(template))
    return stack


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--smtp", default="", metavar="HOST:PORT")
    given = parser.parse_args()
    console = Console(highlight=False)
    if given.command == "down":
        console.print("stopped" if down() else "nothing was running")
        return 0
    try:
        aws = up(console, given.port)
    except (SamError, NotStartedError) as error:
        console.print(str(error), style="red")
        return 1
    host, _, port = given.smtp.rpartition(":")
    if host:
        aws.control.relay_to(host, int(port))
    describe(console, aws)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run the local AWS until it is stopped: MiniStack as a child, the proxies in this process.

    python -m tools.local_aws.server --directory .local/up --port 4566 [--front kms,sts,dynamodb,sqs,s3] [--with-parent]

Writes `server.json` into the directory once everything responds: the addresses, and the processes to stop. Stops on SIGTERM or SIGINT, or,
with `--with-parent`, when its standard input is closed, so that a killed test run leaves no processes behind.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from tools.local_aws.control import ControlServer
from tools.local_aws.feedback import EventBridgeRules, Feedback
from tools.local_aws.processes import Process
from tools.local_aws.proxy import HOST, Accounts, FaultProxy, Wire, reserve_port
from tools.local_aws.ses import Ledger, SesGate

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-ministack/bin/python"
REGION = "us-east-1"
START = 30.0  # seconds that MiniStack may take to start
POLL = 0.05  # seconds; MiniStack does not signal that it is ready
# Credentials of the platform: for MiniStack this key is the root user of its first account.
PLATFORM = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
# Excludes the developer's own AWS setup.
NO_OWN_SETUP = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of a running local AWS, and the processes to stop."""

    aws: str
    control: str
    services: dict[str, str]
    mail: str
    server: Process
    ministack: Process

    @classmethod
    def read(cls, directory: Path) -> "Addresses | None":
        """Read the file of a running server; None if none runs."""
        try:
            data: dict[str, Any] = json.loads((directory / "server.json").read_text())
        except FileNotFoundError:
            return None
        processes = {name: Process(**data[name]) for name in ("server", "ministack")}
        addresses = cls(**{**data, **processes})
        return addresses if addresses.server.runs() else None


async def serve(directory: Path, port: int, front: list[str], stop: asyncio.Event) -> None:
    """Serve until `stop` is set or MiniStack ends."""
    if port and is_taken(port):
        raise SystemExit(f"port {port} is taken")
    held = reserve_port(port)  # until MiniStack listens there
    port = int(held.getsockname()[1])
    aws = f"http://{HOST}:{port}"
    shared = Wire(Accounts(functools.partial(_account_of, aws)))
    feedback = Feedback(EventBridgeRules(aws), shared.changes)
    gate = SesGate(Ledger(directory / "mail"), feedback)
    proxies = {"ses": FaultProxy("ses", shared, upstream=(HOST, port), gate=gate)}
    proxies |= {name: FaultProxy(name, shared, upstream=(HOST, port)) for name in front}
    for proxy in proxies.values():
        await proxy.start()
    control = ControlServer(shared, proxies, gate)
    control_port = await control.start()
    urls = {name: proxy.url for name, proxy in proxies.items()}
    with (directory / "ministack.log").open("ab") as log:
        child = await _start_ministack(directory, port, urls, log)
        ended = asyncio.ensure_future(child.wait())
        await _until_it_answers(port, ended)
        held.close()
        processes = (Process.of(os.getpid()), Process.of(child.pid))
        _write(directory, Addresses(aws, f"http://{HOST}:{control_port}", urls, str(directory / "mail"), *processes))
        await asyncio.wait({ended, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        (directory / "server.json").unlink(missing_ok=True)
        feedback.stop()
        await asyncio.to_thread(processes[1].stop, group=True)
    for proxy in proxies.values():
        await proxy.stop()
    await control.stop()
    shutil.rmtree(directory / "tmp", ignore_errors=True)


async def _start_ministack(directory: Path, port: int, urls: dict[str, str], log: IO[bytes]) -> asyncio.subprocess.Process:
    """Start the emulator in a minimal environment, which its functions inherit."""
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {
        "PATH": os.defpath,
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "AUTH": "true",
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "S3_DATA_DIR": str(temporary / "s3"),
        "STATE_DIR": str(temporary / "state"),
        "LOG_LEVEL": "WARNING",
        **NO_OWN_SETUP,
        **endpoints(urls),
    }
    return await asyncio.create_subprocess_exec(
        PYTHON,
        "-P",  # its own folder must not be on sys.path
        Path(__file__).with_name("emulator.py"),
        env=environment,
        cwd=temporary,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


async def _until_it_answers(port: int, ended: asyncio.Future[int]) -> None:
    async with asyncio.timeout(START):
        while not ended.done():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return
            await asyncio.sleep(POLL)
    raise RuntimeError("MiniStack ended before it was ready; see ministack.log")


def endpoints(urls: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that point the SDK's clients to the fault proxies, named by botocore's service ids."""
    variables = {"ses": ("SES", "SESV2"), "events": ("EVENTBRIDGE",)}
    return {f"AWS_ENDPOINT_URL_{variable}": url for name, url in urls.items() for variable in variables.get(name, (name.upper(),))}


def is_taken(port: int) -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _account_of(aws: str, access_key: str) -> str:
    session = boto3.Session(PLATFORM["AWS_ACCESS_KEY_ID"], PLATFORM["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
    sts = session.client("sts", endpoint_url=aws)
    try:
        return str(sts.get_access_key_info(AccessKeyId=access_key)["Account"])
    except (BotoCoreError, ClientError):
        return ""


def _write(directory: Path, addresses: Addresses) -> None:
    unfinished = directory / "server.json.new"
    unfinished.write_text(json.dumps(asdict(addresses)))
    unfinished.replace(directory / "server.json")


async def _main(directory: Path, port: int, front: list[str], *, with_parent: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_parent:
        loop.add_reader(sys.stdin, stop.set)  # nothing is written there, so readable means closed
    await serve(directory, port, front, stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--front", default="", help="further services to put a fault proxy in front of, comma-separated")
    parser.add_argument("--with-parent", action="store_true")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    services = [name for name in given.front.split(",") if name]
    asyncio.run(_main(given.directory.resolve(), given.port, services, with_parent=given.with_parent))

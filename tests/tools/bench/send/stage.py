"""The stage of the benchmark: the little AWS in a process of its own, and one process for each measurement against it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from botocore.httpsession import DEFAULT_CA_BUNDLE

from support.servers import certificates
from tools.bench.send.aws import HOST, KEY_ARN
from tools.bench.send.workload import REGION
from tools.local_aws.server import NO_OWN_SETUP, ROOT

HERE = Path(__file__).parent
PROCESSORS = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
THREADS = 32  # as template.yaml has it
MEMORY = 1769  # MB, as template.yaml has it


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the little AWS listens, and the environment that leads to it."""

    folder: Path
    control: str
    environment: Mapping[str, str]

    def run(
        self, module: str, name: str, *, package: str = "tools.bench.send", threads: int = THREADS, memory: int = MEMORY, **options: int
    ) -> dict[str, float]:
        """Measure one contender in a process of its own."""
        command = [sys.executable, "-m", f"{package}.{module}", name]
        return self._run(command, options, {"SEND_THREADS": str(threads), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory)})

    def node(self, **options: Any) -> dict[str, float] | None:
        """Measure nodemailer on Node; None where there is none."""
        if shutil.which("node") is None or shutil.which("npm") is None:
            return None
        if not (HERE / "node_modules").exists():
            subprocess.run(["npm", "ci"], cwd=HERE, check=True, capture_output=True)
        return self._run(["node", str(HERE / "node.mjs")], options, {})

    def _run(self, command: list[str], options: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, float]:
        result = self.folder / "result.json"
        with (self.folder / "log.txt").open("w") as log:
            subprocess.run([*command, str(result), json.dumps(options)], env={**self.environment, **more}, stdout=log, check=True, cwd=ROOT)
        self._check()
        figures: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        return figures

    def _check(self) -> None:
        """Make sure that every message was sent: one that waits would count as very fast."""
        counts: dict[str, int] = json.loads(urllib3.request("GET", self.control).data)
        assert {name for name in counts if name.startswith("status.")} <= {"status.sent"}, counts


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Run the little AWS until the block ends."""
    pem, trusted = certificates.make(folder, HOST), folder / "trusted.pem"
    # What botocore parses on AWS, and our own authority.
    trusted.write_text(Path(DEFAULT_CA_BUNDLE).read_text(encoding="utf-8") + pem.read_text(encoding="ascii"), encoding="utf-8")
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "tools.bench.send.aws", str(pem)]
    with subprocess.Popen(command, env=paths, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            confine(server.pid, 0)
            confine(0, -1)  # and with this process all that it starts
            addresses = json.loads(server.stdout.readline())
            yield Stage(
                folder,
                addresses["control"],
                {**paths, **environment(addresses, trusted), "NODE_EXTRA_CA_CERTS": str(pem), "NODE_NO_WARNINGS": "1"},
            )
        finally:
            server.stdin.close()


def confine(pid: int, which: int) -> None:
    """Keep a process on one processor, as a function of 1769 MB has one; where the system does not take that, it goes without."""
    if sys.platform == "linux":
        os.sched_setaffinity(pid, [PROCESSORS[which]])


def environment(addresses: Mapping[str, str], trusted: Path) -> dict[str, str]:
    """Give a function the variables that Lambda and the template give it."""
    endpoints = {f"AWS_ENDPOINT_URL_{service.upper()}": url for service, url in addresses.items() if service != "control"}
    return {
        **NO_OWN_SETUP,
        **endpoints,
        "AWS_ENDPOINT_URL_SESV2": addresses["ses"],
        "AWS_ACCESS_KEY_ID": "AKIAOWN",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CA_BUNDLE": str(trusted),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY),
        "POWERTOOLS_SERVICE_NAME": "tenantmail",
        "POWERTOOLS_METRICS_NAMESPACE": "Tenantmail",
        "POWERTOOLS_LOG_LEVEL": "INFO",
        "PROVIDERS_TABLE": "providers",
        "MESSAGES_TABLE": "messages",
        "PACING_TABLE": "pacing",
        "SUPPRESSIONS_TABLE": "suppressions",
        "ATTACHMENTS_BUCKET": "attachments",
        "SEND_QUEUE_URL": f"{addresses['sqs']}/0/send",
        "DEAD_LETTER_QUEUE_URL": f"{addresses['sqs']}/0/dead",
        "PROVIDER_KEY_ARN": KEY_ARN,
        "EVENT_BUS": "outcomes",
        "SEND_THREADS": str(THREADS),
        "CONTROL": addresses["control"],
    }

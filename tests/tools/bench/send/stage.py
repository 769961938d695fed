"""Processes of the benchmark: one for the fake AWS, and one for each measurement."""

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
    """Address of the fake AWS, and the environment variables that point to it."""

    folder: Path
    control: str
    environment: Mapping[str, str]

    def run(
        self,
        module: str,
        name: str,
        *,
        package: str = "tools.bench.send",
        threads: int = THREADS,
        memory: int = MEMORY,
        ends: str = "sent",
        **options: int,
    ) -> dict[str, float]:
        """Measure one contender in its own process; every record must have one status when it `ends`."""
        command = [sys.executable, "-m", f"{package}.{module}", name]
        return self._run(command, options, {"SEND_THREADS": str(threads), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory)}, ends)

    def node(self, **options: Any) -> dict[str, float] | None:
        """Measure nodemailer on Node; return None if Node is not installed."""
        if shutil.which("node") is None or shutil.which("npm") is None:
            return None
        if not (HERE / "node_modules").exists():
            subprocess.run(["npm", "ci"], cwd=HERE, check=True, capture_output=True)
        return self._run(["node", str(HERE / "node.mjs")], options, {})

    def _run(self, command: list[str], options: Mapping[str, Any], more: Mapping[str, str], ends: str = "sent") -> dict[str, float]:
        result = self.folder / "result.json"
        with (self.folder / "log.txt").open("w") as log:
            subprocess.run([*command, str(result), json.dumps(options)], env={**self.environment, **more}, stdout=log, check=True, cwd=ROOT)
        self._check(ends)
        figures: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        return figures

    def _check(self, ends: str) -> None:
        """Assert that every message came to the same end: a deferred one would count as very fast."""
        counts: dict[str, int] = json.loads(urllib3.request("GET", self.control).data)
        assert {name for name in counts if name.startswith("status.")} <= {f"status.{ends}"}, counts


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Run the fake AWS until the block ends."""
    pem, trusted = certificates.make(folder, HOST), folder / "trusted.pem"
    # The bundle that botocore parses on AWS, plus our own CA.
    trusted.write_text(Path(DEFAULT_CA_BUNDLE).read_text(encoding="utf-8") + pem.read_text(encoding="ascii"), encoding="utf-8")
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "tools.bench.send.aws", str(pem)]
    with subprocess.Popen(command, env=paths, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            confine(server.pid, 0)
            confine(0, -1)  # child processes inherit it
            addresses = json.loads(server.stdout.readline())
            yield Stage(
                folder,
                addresses["control"],
                {**paths, **environment(addresses, trusted), "NODE_EXTRA_CA_CERTS": str(pem), "NODE_NO_WARNINGS": "1"},
            )
        finally:
            server.stdin.close()


def confine(pid: int, which: int) -> None:
    """Pin a process to one CPU, as a function of 1769 MB has one; on Linux only."""
    if sys.platform == "linux":
        os.sched_setaffinity(pid, [PROCESSORS[which]])


def environment(addresses: Mapping[str, str], trusted: Path) -> dict[str, str]:
    """Return the environment variables that Lambda and the template set."""
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
        "SESSIONS_TABLE": "sessions",
        "CACHE_KEY_ARN": KEY_ARN,
        "QUEUE_KEY_ARN": KEY_ARN,
        "EVENT_BUS": "outcomes",
        "SEND_THREADS": str(THREADS),
        "CONTROL": addresses["control"],
    }

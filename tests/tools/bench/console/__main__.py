"""Measure the console's pages on the local AWS: wall time, and the console's own CPU without the API's."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import urllib3

from tools.local_aws import console_process
from tools.local_aws.running import LocalAws, local_aws
from tools.local_aws.up import exports

TURNS = 9
MESSAGES = 50
"""Requests of the tenant; more than a page lists."""


def main() -> None:
    print("| screen | wall, median | CPU of the console (goal < 200 ms) |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, local_aws(Path(folder)) as aws:
        paths = screens(aws)
        address = console_process.start(Path(folder), exports(aws))
        process = console_process.pid(Path(folder))
        try:
            for path in paths:
                wall, cpu = measure(address.rstrip("/") + path, process)
                print(f"| {path.partition('?')[0]} | {1000 * wall:.0f} ms | {1000 * cpu:.0f} ms |")
        finally:
            console_process.stop(Path(folder))


def screens(aws: LocalAws) -> Sequence[str]:
    """Send some mail and return the pages to measure."""
    tenant = aws.active_tenant("acme")
    for number in range(MESSAGES):
        message = {"to": [{"email": f"jo-{number}@example.com"}], "subject": f"Invoice {number}", "text": "Hello"}
        aws.api.submit("acme", {"requestId": f"r-{number}", "message": message})
    aws.control.wait_for_mails(MESSAGES + 1, account=tenant.account)
    suffixes = ("", "/statistics", "/suppressions", "/onboarding", "/messages/r-0")
    of_tenant = [f"/tenants/acme{suffix}" for suffix in suffixes]
    return ["/now", "/tenants", *of_tenant, "/messages?tenant=acme", "/dead-letters", "/compose", "/inbox"]


def measure(url: str, process: int) -> tuple[float, float]:
    """Load a page several times; return its median wall time and CPU time, in seconds."""
    http = urllib3.PoolManager(maxsize=1, retries=False)
    load(http, url)  # the first one compiles templates
    began, walls = cpu_of(process), []
    for _ in range(TURNS):
        at = time.perf_counter()
        load(http, url)
        walls.append(time.perf_counter() - at)
    return median(walls), (cpu_of(process) - began) / TURNS


def load(http: urllib3.PoolManager, url: str) -> None:
    answer = http.request("GET", url)
    if answer.status != 200:
        raise RuntimeError(f"{url} answers {answer.status}")


def cpu_of(process: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()

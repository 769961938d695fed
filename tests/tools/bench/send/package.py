"""Package SendFunction twice, as shipped and as by a plain `sam build`, and start it under AWS's Runtime Interface Emulator."""

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.bench.send.stage import Stage
from tools.bench.send.workload import Requests, Tenant, event
from tools.local_aws.invoke import INIT, INVOKE, emulated, invoke
from tools.local_aws.server import ROOT

SHIPPED, PLAIN = "shipped", "plain"


def pack(folder: Path) -> Mapping[str, tuple[Path, Path]]:
    """Build function and layer as `make build` does; return them, and a copy without compiled modules, each as (function, layer)."""
    architecture = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for target in ("SendFunction", "Dependencies"):
        artifacts = folder / SHIPPED / target
        artifacts.mkdir(parents=True)
        variables = {"ARTIFACTS_DIR": str(artifacts), "ARCHITECTURE": "arm64" if architecture == "aarch64" else architecture}
        command = ["make", "--makefile", str(ROOT / "src/Makefile"), f"build-{target}"]
        environment = {**os.environ, **variables, "PYTHON": sys.executable}
        subprocess.run(command, cwd=ROOT / "src", env=environment, check=True, capture_output=True)
    shutil.copytree(folder / SHIPPED, folder / PLAIN, ignore=shutil.ignore_patterns("__pycache__"))
    return {name: (folder / name / "SendFunction", folder / name / "Dependencies/python") for name in (SHIPPED, PLAIN)}


def size(package: tuple[Path, Path]) -> int:
    """Return the bytes of a package, unzipped."""
    return sum(path.stat().st_size for part in package for path in part.rglob("*") if path.is_file())


def starts(stage: Stage, package: tuple[Path, Path], times: int) -> dict[str, float]:
    """Start a package `times` times; return the median seconds of init and of the first message."""
    taken = [_start(stage, package, n) for n in range(times)]
    return {"init": statistics.median(t[0] for t in taken), "first": statistics.median(t[1] for t in taken)}


def _start(stage: Stage, package: tuple[Path, Path], number: int) -> tuple[float, float]:
    function, layer = package
    variables = {
        **stage.environment,
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{function}{os.pathsep}{layer}",
        "PYTHONDONTWRITEBYTECODE": "1",  # /var/task and /opt are read-only
        "LAMBDA_TASK_ROOT": str(function),
        "_HANDLER": "mailer.handlers.send.handler",
        "AWS_LAMBDA_FUNCTION_NAME": "send",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    }
    log = stage.folder / "emulator.txt"
    with emulated(variables, log) as url:
        answer = invoke(url, json.dumps(event(Requests(f"{function.parent.name}-{number}").take([Tenant(0)], 1))).encode())
        assert answer == {"batchItemFailures": []}, answer
    text = log.read_text(errors="replace")
    init, took = re.search(INIT, text), re.search(INVOKE, text)
    assert init
    assert took
    return float(init[1]) / 1000, float(took[1]) / 1000

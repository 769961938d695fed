"""Modules that a cold start must not load."""

import os
import subprocess
import sys

from support.aws import tables

HANDLERS = [resource["Properties"]["Handler"].rpartition(".")[0] for resource in tables.resources("AWS::Serverless::Function").values()]


def test_no_handler_loads_the_tracer() -> None:
    """Lambda itself traces the functions if the parameter enables it; X-Ray's SDK would cost a third of a second per cold start."""
    code = f"import importlib, sys\nfor name in {HANDLERS!r}: importlib.import_module(name)\nprint(*sys.modules)"
    shell = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tables.ROOT / "src")}
    loaded = subprocess.run([sys.executable, "-c", code], env=shell, capture_output=True, text=True, check=True).stdout.split()
    assert set(HANDLERS) <= set(loaded)
    assert not [name for name in loaded if name.startswith("aws_xray_sdk")]


def test_send_loads_nothing_of_the_other_functions() -> None:
    """Wiring imports a function's modules when it builds them."""
    code = "import sys\nimport mailer.handlers.send\nprint(*sys.modules)"
    shell = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tables.ROOT / "src")}
    loaded = subprocess.run([sys.executable, "-c", code], env=shell, capture_output=True, text=True, check=True).stdout.split()
    theirs = ("api", "feedback", "operations", "providers", "statistics", "suppressions", "sweeping")
    assert not [name for name in loaded if name.startswith(tuple(f"mailer.services.{service}" for service in theirs))]

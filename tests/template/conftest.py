"""The template as written (`tables.template()`), and with SAM's resources expanded."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.aws import tables

EXPAND = Path(__file__).with_name("expand.py")


def expand(path: Path, *parameters: str) -> Path:
    with path.open("w") as file:
        command = [tables.ROOT / ".venv-sam/bin/python", EXPAND, tables.ROOT / "template.yaml", *parameters]
        subprocess.run(command, stdout=file, check=True)
    return path


@pytest.fixture(scope="session")
def expanded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the template with SAM's resources expanded."""
    return expand(tmp_path_factory.mktemp("template") / "expanded.json")


@pytest.fixture(scope="session")
def expanded_with_canaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the template with SAM's resources expanded for CanaryDeployments=true."""
    return expand(tmp_path_factory.mktemp("template") / "canaries.json", "CanaryDeployments=true")


@pytest.fixture(scope="session")
def stack(expanded: Path) -> dict[str, dict[str, Any]]:
    """Return the expanded resources by their logical ids."""
    return resources(expanded)


@pytest.fixture(scope="session")
def stack_with_canaries(expanded_with_canaries: Path) -> dict[str, dict[str, Any]]:
    """Return the expanded resources of a stack with canary deployments."""
    return resources(expanded_with_canaries)


def resources(expanded: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(expanded.read_text())["Resources"]
    return found

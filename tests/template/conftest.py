"""The template as written (`tables.template()`), and as CloudFormation sees it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import tables

EXPAND = Path(__file__).with_name("expand.py")


@pytest.fixture(scope="session")
def expanded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the template with SAM's resources expanded."""
    path = tmp_path_factory.mktemp("template") / "expanded.json"
    with path.open("w") as file:
        command = [tables.ROOT / ".venv-sam/bin/python", EXPAND, tables.ROOT / "template.yaml"]
        subprocess.run(command, stdout=file, check=True)
    return path


@pytest.fixture(scope="session")
def stack(expanded: Path) -> dict[str, dict[str, Any]]:
    """Return the expanded resources by their logical ids."""
    resources: dict[str, dict[str, Any]] = json.loads(expanded.read_text())["Resources"]
    return resources

"""The callers' client is a separate package: its wheel contains all its modules, and nothing of the server."""

import ast
import os
import subprocess
import sys
import zipfile
from dataclasses import MISSING, fields
from email import message_from_string
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import mailer_client.models
from mailer.domain.delivery import END_STATUSES, Status
from mailer.handlers.rest import models, provider_models, suppression_models
from mailer_client.models import json_name
from support.aws import tables

UV = tables.ROOT / ".venv-uv/bin/uv"
NEEDED = ("botocore", "jmespath", "dateutil", "six", "urllib3")
"""botocore and its dependencies."""

ANSWERS = sorted(name for name, kind in vars(mailer_client.models).items() if hasattr(kind, "__dataclass_fields__"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as `make client` does."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([UV, "build", "--quiet", "--offline", "--wheel", "--out-dir", folder, "src"], cwd=tables.ROOT, check=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with its declared dependencies in a fresh environment; return that environment's Python."""
    environment = tmp_path_factory.mktemp("caller") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin/python"
    install = [UV, "pip", "install", "--quiet", "--offline", "--no-index", "--no-deps", "--python", python, wheel]
    subprocess.run(install, check=True)
    [site] = environment.glob("lib/python*/site-packages")
    for name in NEEDED:
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        source = Path(found.origin).parent if found.submodule_search_locations else Path(found.origin)
        (site / source.name).symlink_to(source)
    return python


def test_the_wheel_contains_the_client_and_depends_only_on_botocore(wheel: Path) -> None:
    """With its types, without the server and the operators' programs."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
    modules = {f"mailer_client/{path.name}" for path in (tables.ROOT / "src/mailer_client").glob("*.py")}
    assert {name for name in names if not name.endswith("/") and ".dist-info/" not in name} == {*modules, "mailer_client/py.typed"}
    headers = message_from_string(metadata)
    assert [needed.partition(">")[0] for needed in headers.get_all("Requires-Dist", [])] == ["botocore"]
    assert headers["Requires-Python"] == ">=3.11"


def test_the_client_runs_without_other_packages(alone: Path) -> None:
    """Importing it loads botocore, and no module of the server or of a higher-level SDK."""
    code = "import sys, mailer_client; print(mailer_client.__file__, *{name.partition('.')[0] for name in sys.modules})"
    shell = {"PATH": os.environ["PATH"]}
    done = subprocess.run([alone, "-I", "-c", code], env=shell, capture_output=True, text=True, check=True)
    where, *loaded = done.stdout.split()
    assert Path(where).is_relative_to(alone.parent.parent)
    assert "botocore" in loaded
    assert not {"mailer", "mailer_ops", "pydantic", "boto3", "aws_lambda_powertools"} & set(loaded)


@pytest.mark.parametrize("path", sorted((tables.ROOT / "src/mailer_client").glob("*.py")), ids=lambda path: path.name)
def test_the_client_s_syntax_is_that_of_python_3_11(path: Path) -> None:
    """Callers may have an older Python than the server."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))


@pytest.mark.parametrize("name", ANSWERS)
def test_the_client_has_every_field_of_the_api(name: str) -> None:
    """With the same name, required if the API always returns it."""
    served: Any = next(getattr(module, name) for module in (models, provider_models, suppression_models) if hasattr(module, name))
    answered = {field.alias or key: field.is_required() for key, field in served.model_fields.items()}
    read = {json_name(field.name): field.default is MISSING for field in fields(getattr(mailer_client.models, name))}
    assert read == answered


def test_the_client_has_every_status() -> None:
    """And the same end statuses."""
    assert {status.value for status in mailer_client.models.Status} == {status.value for status in Status}
    assert {str(status) for status in mailer_client.models.END_STATUSES} == {str(status) for status in END_STATUSES}

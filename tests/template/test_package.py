"""The packages of `sam build` start fast and are complete."""

import os
import platform
import re
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from support.aws import tables

ARCHITECTURE = {"x86_64": "x86_64", "amd64": "x86_64"}.get(platform.machine().lower(), "arm64")
UNCHECKED_HASH = 0b01  # flags of PEP 552: unchecked hash-based
FUNCTIONS = sorted(tables.resources("AWS::Serverless::Function"))
BUDGET = 60_000_000  # bytes; Lambda's limit is 250 MB, and a cold start reads all of them


def make(target: str, artifacts: Path, architecture: str = ARCHITECTURE, checkout: Path = tables.ROOT) -> subprocess.CompletedProcess[str]:
    artifacts.mkdir(parents=True)
    command = ["make", "--makefile", checkout / "src/Makefile", f"build-{target}"]
    environment = {**os.environ, "ARTIFACTS_DIR": str(artifacts), "ARCHITECTURE": architecture, "PYTHON": sys.executable}
    return subprocess.run(command, cwd=checkout / "src", env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the layer and one function; return their folders as Lambda unpacks them."""
    root = tmp_path_factory.mktemp("package")
    for target in ("Dependencies", "SendFunction"):
        built = make(target, root / target)
        assert built.returncode == 0, built.stderr
    return {"layer": root / "Dependencies/python", "function": root / "SendFunction"}


def python(package: dict[str, Path], code: str) -> str:
    """Run code with only the packages."""
    path = f"import sys; sys.path[1:1] = [{str(package['function'])!r}, {str(package['layer'])!r}]; sys.dont_write_bytecode = True\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", path + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def handler_module(function: str) -> str:
    return str(tables.template()["Resources"][function]["Properties"]["Handler"].rpartition(".")[0])


@pytest.mark.parametrize("part", ["layer", "function"])
def test_every_module_is_compiled(package: dict[str, Path], part: str) -> None:
    """Nothing is compiled at a cold start, and file times, which zip archives change, are not compared."""
    sources = list(package[part].rglob("*.py"))
    assert sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        head = compiled.read_bytes()[:8]
        assert head == MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little"), source


def test_compiled_modules_have_their_final_paths(package: dict[str, Path]) -> None:
    """Packages are reproducible, so an unchanged layer is not uploaded again."""
    for compiled in package["function"].rglob("*.pyc"):
        assert str(package["function"]).encode() not in compiled.read_bytes()


def test_a_function_package_has_only_our_code(package: dict[str, Path]) -> None:
    """Dependencies are in the layer; neither the callers' client nor the operators' programs are included."""
    assert [path.name for path in package["function"].iterdir()] == ["mailer"]


def test_the_package_is_small(package: dict[str, Path]) -> None:
    """Most of botocore's data is for services that are not called."""
    assert sum(path.stat().st_size for folder in package.values() for path in folder.rglob("*") if path.is_file()) < BUDGET


def test_every_package_has_its_licence(package: dict[str, Path]) -> None:
    """Licences must be distributed with the packages."""
    for metadata in package["layer"].glob("*.dist-info/METADATA"):
        if licences := re.findall(r"^License-File: (.+)$", metadata.read_text(encoding="utf-8"), re.MULTILINE):
            kept = {path.name for path in metadata.parent.rglob("*")}
            assert {Path(name).name for name in licences} <= kept, metadata


def test_the_models_of_all_used_services_are_packaged(package: dict[str, Path]) -> None:
    """A missing model would fail only at the first call."""
    sources = "\n".join(module.read_text() for module in (tables.ROOT / "src/mailer").rglob("*.py"))
    opened = set(re.findall(r'client\(\s*"([a-z0-9]+)"', sources))
    typed = set(re.findall(r"from mypy_boto3_([a-z0-9]+) import", sources))
    services = sorted(opened | typed)
    assert {"dynamodb", "kms", "s3", "ses", "sqs", "sts"} <= set(services)
    python(package, f"import boto3\nfor name in {services!r}: boto3.client(name, region_name='eu-central-1')")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_handler_starts_with_the_packaged_modules(package: dict[str, Path], name: str) -> None:
    """It runs without the packages of the tests' environment."""
    module = handler_module(name)
    loaded = python(package, f"import {module}\nprint({module}.__file__)")
    assert loaded.startswith(str(package["function"]))


def test_the_build_works_in_a_path_with_spaces(package: dict[str, Path], tmp_path: Path) -> None:
    """Make treats such a path as several names."""
    checkout = tmp_path / "my own  checkout"
    checkout.mkdir()
    for name in ("src", ".aws-sam"):  # the built packages are reused
        (checkout / name).symlink_to(tables.ROOT / name)
    for target in ("Dependencies", "SendFunction"):
        built = make(target, tmp_path / "built here" / target, checkout=checkout)
        assert (built.returncode, built.stderr) == (0, "")
    for mine, other in (("Dependencies/python", "layer"), ("SendFunction", "function")):
        assert {path.name for path in (tmp_path / "built here" / mine).iterdir()} == {path.name for path in package[other].iterdir()}


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    """No wheels of another architecture are installed."""
    built = make("Dependencies", tmp_path / "built", "sparc")
    assert built.returncode != 0
    assert "cannot tell the architecture" in built.stderr

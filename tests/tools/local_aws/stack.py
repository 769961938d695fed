"""Build the real template and deploy it to the local AWS, with `sam build` and `sam deploy`."""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from support.aws import tables
from tools.local_aws.server import NO_OWN_SETUP, PLATFORM, REGION, ROOT, Addresses

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

NAME = "tenantmail"
BUILDS = ROOT / ".local/builds"
KEPT_BUILDS = 8  # a deploy reads its build without the lock, so several builds are kept
SAM = ROOT / ".venv-sam/bin/sam"
# Parameters of the local stack that differ from the template's defaults.
PARAMETERS = {"AllowSmtp": "true", "LogLevel": "DEBUG"}
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}


class SamError(Exception):
    """`sam` failed; the text is its output."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed stack."""

    outputs: Mapping[str, str]
    api_url: str
    """URL of the API on the local AWS, instead of the output's amazonaws.com URL."""

    def function_name(self, aws: str, logical_id: str) -> str:
        """Return the name that CloudFormation gave a function."""
        answer = (
            platform_session()
            .client("cloudformation", endpoint_url=aws)
            .describe_stack_resource(StackName=NAME, LogicalResourceId=logical_id)
        )
        return answer["StackResourceDetail"]["PhysicalResourceId"]


def platform_session() -> boto3.Session:
    """Return a session of the platform's account."""
    return boto3.Session(PLATFORM["AWS_ACCESS_KEY_ID"], PLATFORM["AWS_SECRET_ACCESS_KEY"], region_name=REGION)


def build() -> Path:
    """Build the work tree, unless it was built before; return the built template."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    with _locked(BUILDS / "lock"):
        folder = BUILDS / _digest()
        template = folder / "build/template.yaml"
        if not template.exists():
            unfinished = folder.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                _sam("build", "--build-dir", str(unfinished / "build"), "--parameter-overrides", *_parameters())
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        folder.touch()
        for old in sorted(BUILDS.glob("*/"), key=lambda path: path.stat().st_mtime)[:-KEPT_BUILDS]:
            shutil.rmtree(old)
    return template


def deploy(addresses: Addresses, template: Path, parameters: Mapping[str, str] = MappingProxyType({})) -> Stack:
    """Create or update the stack from a built template, with parameters beside `PARAMETERS`."""
    given = [*_parameters(), *(f"{name}={value}" for name, value in parameters.items())]
    _sam("deploy", "--template-file", str(template), "--parameter-overrides", *given, endpoint=addresses.aws)
    _give_numbers(addresses)
    _give_answers(addresses)
    stack = deployed(addresses)
    assert stack
    return stack


def _give_numbers(addresses: Addresses) -> None:
    """Set the event source's concurrency again: MiniStack stores a parameter of type Number as text, which stops its poller."""
    functions = platform_session().client("lambda", endpoint_url=addresses.aws)
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        if most := mapping.get("ScalingConfig", {}).get("MaximumConcurrency"):
            functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": int(most)})


def _give_answers(addresses: Addresses) -> None:
    """Set the API's gateway responses: MiniStack does not read them from the API's definition, where SAM puts them."""
    api = platform_session().client("apigateway", endpoint_url=addresses.aws)
    found = _cloudformation(addresses).describe_stack_resource(StackName=NAME, LogicalResourceId="Api")
    api_id = found["StackResourceDetail"]["PhysicalResourceId"]
    for kind, answer in tables.template()["Resources"]["Api"]["Properties"]["GatewayResponses"].items():
        api.put_gateway_response(
            restApiId=api_id,
            responseType=kind,
            statusCode=str(answer["StatusCode"]),
            responseParameters={f"gatewayresponse.header.{name}": value for name, value in answer["ResponseParameters"]["Headers"].items()},
            responseTemplates=answer["ResponseTemplates"],
        )
    api.create_deployment(restApiId=api_id, stageName="v1")


def deployed(addresses: Addresses) -> Stack | None:
    """Return the deployed stack; None before the first deploy."""
    try:
        [stack] = _cloudformation(addresses).describe_stacks(StackName=NAME)["Stacks"]
    except ClientError:
        return None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return Stack(outputs, local_api_url(addresses.aws, outputs["ApiUrl"]))


def _cloudformation(addresses: Addresses) -> "CloudFormationClient":
    config = Config(retries={"total_max_attempts": 1})
    return platform_session().client("cloudformation", endpoint_url=addresses.aws, config=config)


def local_api_url(aws: str, url: str) -> str:
    """Return the local URL of `https://{apiId}.execute-api.…/{stage}`."""
    parts = urlsplit(url)
    return f"{aws}/_aws/execute-api/{parts.netloc.partition('.')[0]}{parts.path}"


def sam_environment(endpoint: str = "") -> dict[str, str]:
    """Return an environment in which `sam` finds Python 3.13 with pip and the local AWS, and no AWS setup of the user."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    local = {"AWS_ENDPOINT_URL": endpoint, **PLATFORM} if endpoint else {"AWS_DEFAULT_REGION": REGION}
    return {
        **inherited,
        **local,
        **NO_OWN_SETUP,
        "PATH": f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.3",  # seconds between two polls of a deployment; 5 by default
    }


def _sam(command: str, *arguments: str, endpoint: str = "") -> None:
    config = ["--config-file", str(ROOT / "samconfig.toml"), "--config-env", "local"]
    # In its own session: we pass Ctrl-C on, so that it and its children have ended before we do.
    with subprocess.Popen(
        [SAM, command, *config, *arguments],
        cwd=ROOT,
        env=sam_environment(endpoint),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as sam:
        try:
            said, _ = sam.communicate()
        except BaseException:
            _interrupt(sam)
            raise
    if sam.returncode:
        raise SamError(f"sam {command} failed:\n{said}")


def _interrupt(sam: subprocess.Popen[str]) -> None:
    """End a program and its children, with time to remove its temporary files."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(sam.pid, signal.SIGINT)
        sam.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(sam.pid, signal.SIGKILL)


def _parameters() -> list[str]:
    given = {"Architecture": ARCHITECTURES[platform.machine().lower()], **PARAMETERS}
    return [f"{name}={value}" for name, value in given.items()]


def _digest() -> str:
    digest = hashlib.sha256(" ".join(_parameters()).encode())
    files = [ROOT / "template.yaml", ROOT / "samconfig.toml", *sorted((ROOT / "src").rglob("*"))]
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"\0{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock shared by all processes of this work tree."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

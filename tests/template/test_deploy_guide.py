"""docs/deploy.md agrees with the template."""

import json
import re
import shlex
import subprocess
import tomllib
from typing import Any

import pytest

from mailer_ops.operations.replay import MARGIN
from mailer_ops.stack import RECORDING
from support.aws import tables

PAGE = (tables.ROOT / "docs/deploy.md").read_text(encoding="utf-8")
SERVICES = {"Serverless": "lambda", "ApiGateway": "apigateway"}
"""IAM's service names that differ from CloudFormation's."""


def part(name: str) -> str:
    """Return the text between two markers."""
    return PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- {name} end -->")[0]


def test_the_guide_lists_each_parameter_with_its_default() -> None:
    """The guide lists all parameters, in any order, and no removed one."""
    documented = dict(re.findall(r"^ +\| `(\w+)` \| (\S+) \|", part("parameters"), re.MULTILINE))
    parameters = tables.template()["Parameters"]
    assert documented == {
        name: f"`{parameter['Default']}`" if parameter["Default"] != "" else "none" for name, parameter in parameters.items()
    }


def test_the_readme_lists_each_parameter() -> None:
    """In the first column of its table, and no removed one."""
    section = (tables.ROOT / "README.md").read_text(encoding="utf-8").partition("## Configuration")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == tables.template()["Parameters"].keys()


def test_a_deployment_uses_the_parameters_that_the_guide_sets() -> None:
    """SAM ignores those of samconfig.toml where its command line has any; `sam build` needs them too, for the processor."""
    [sample] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    given, kept = tomllib.loads(sample)["default"], tomllib.loads((tables.ROOT / "samconfig.toml").read_text())["default"]
    assert given.keys() == {"global"}
    assert given["global"]["parameters"].items() >= kept["global"]["parameters"].items()
    overrides = dict(word.split("=", 1) for word in shlex.split(given["global"]["parameters"]["parameter_overrides"]))
    assert overrides.keys() <= tables.template()["Parameters"].keys()
    done = subprocess.run(["make", "--dry-run", "deploy"], cwd=tables.ROOT, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("sam ")] == ["sam build", "sam deploy"]
    refused = subprocess.run(["make", "--dry-run", "deploy", "ARCHITECTURE=x86_64"], cwd=tables.ROOT, capture_output=True, check=False)
    assert b"set the parameter Architecture in samconfig.toml" in refused.stderr  # only the packages would be of it


@pytest.mark.parametrize("canaries", [False, True], ids=["at once", "canaries"])
def test_the_deployer_s_policy_covers_each_service_of_the_stack(request: pytest.FixtureRequest, *, canaries: bool) -> None:
    """A new kind of resource must not fail first in production."""
    stack: dict[str, dict[str, Any]] = request.getfixturevalue("stack_with_canaries" if canaries else "stack")
    policy = json.loads(part("deployer").strip().removeprefix("```json").removesuffix("```"))
    allowed = {action.partition(":")[0] for statement in policy["Statement"] for action in [statement["Action"]] if isinstance(action, str)}
    kinds = {resource["Type"].split("::")[1] for resource in stack.values()}
    assert {SERVICES.get(kind, kind.lower()) for kind in kinds} <= allowed


def test_every_resource_that_a_command_names_is_in_the_stack(stack: dict[str, dict[str, Any]]) -> None:
    """A renamed one would be noticed only during a restore."""
    named = set(re.findall(r"\$\(resource (\w+)\)", PAGE))
    assert {"MessagesTable", "SendFunction", "SweepFunctionEveryMinute"} <= named
    assert named <= set(stack)
    assert set(re.findall(r"\$\(output (\w+)\)", PAGE)) <= set(tables.template()["Outputs"])


def test_every_log_with_outcomes_is_replayed() -> None:
    """The replay reads the log of each function that writes records."""
    writers = [name for name in tables.resources("AWS::Serverless::Function") if "MESSAGES_TABLE" in tables.variables(name)]
    assert sorted(RECORDING) == sorted(f"{name}Logs" for name in writers)


def test_the_guide_says_which_lines_a_replay_from_a_file_needs() -> None:
    """All lines that `make replay` queries itself: without its `sent` line a request would be sent again."""
    [documented] = re.findall(r"`LOG=lines\.json`.*?second\s+time", PAGE, re.DOTALL)
    assert set(re.findall(r"\w+Function\b", documented)) == {name.removesuffix("Logs") for name in RECORDING}
    assert f"{MARGIN.total_seconds() / 60:g} minutes before the moment" in documented


def test_every_make_command_of_the_guides_exists() -> None:
    """Its variables exist too."""
    makefile = (tables.ROOT / "Makefile").read_text(encoding="utf-8")
    pages = [PAGE, *((tables.ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/runbook.md"))]
    used = {command for page in pages for command in re.findall(r"(?:^|`)make ([a-z][a-z-]*(?: [A-Z]+=)?)", page, re.MULTILINE)}
    assert {"pause", "trouble HOURS=", "erase DO=", "replay SINCE="} <= used
    for command in used:
        target, _, variable = command.partition(" ")
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", makefile, re.MULTILINE)
        assert recipe, command
        name = variable.removesuffix("=")
        assert not name or f"$({name})" in recipe[1] or name == "STACK", command

"""All callers use an immutable version; the next one replaces it at once, or gradually."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.aws import tables

Stack = dict[str, dict[str, Any]]

FUNCTIONS = sorted(tables.resources("AWS::Serverless::Function"))
NOT_THE_FUNCTIONS_OWN = {"DeploymentPreference", "Events", "VersionDescription"}
"""Properties of the SAM resource that are not part of a version."""


def of_type(stack: Stack, kind: str) -> Stack:
    return {name: resource for name, resource in stack.items() if resource["Type"] == kind}


def properties(function: str) -> dict[str, Any]:
    own: dict[str, Any] = tables.template()["Resources"][function]["Properties"]
    return {**tables.template()["Globals"]["Function"], **own, "Environment": tables.variables(function)}


def parameters_in(value: Any) -> Iterator[str]:
    """Yield the parameters that a part of the template depends on."""
    match value:
        case {"Ref": str(name)}:
            yield from {name} & set(tables.template()["Parameters"])
        case {"Fn::If": [condition, *outcomes]}:
            yield from parameters_in([tables.template()["Conditions"][condition], *outcomes])
        case dict():
            yield from parameters_in(list(value.values()))
        case list():
            for inner in value:
                yield from parameters_in(inner)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_has_an_alias_of_its_newest_version(stack: Stack, name: str) -> None:
    """Old versions are kept for rollbacks."""
    alias = stack[f"{name}Aliaslive"]["Properties"]
    version = stack[alias["FunctionVersion"]["Fn::GetAtt"][0]]
    assert version["Properties"]["FunctionName"] == {"Ref": name}
    assert version["DeletionPolicy"] == "Retain"


def test_the_queue_and_the_schedule_call_the_alias(stack: Stack) -> None:
    """A call of the function itself would bypass a rollback."""
    sources = of_type(stack, "AWS::Lambda::EventSourceMapping")
    assert sources["SendFunctionSendQueue"]["Properties"]["FunctionName"] == {"Ref": "SendFunctionAliaslive"}
    assert all(source["Properties"]["FunctionName"]["Ref"].endswith("Aliaslive") for source in sources.values())
    [target] = stack["SweepFunctionEveryMinute"]["Properties"]["Targets"]
    assert target["Arn"] == {"Ref": "SweepFunctionAliaslive"}


def test_only_aliases_may_be_called_from_outside(stack: Stack) -> None:
    """The permissions of API and schedule name them."""
    permissions = of_type(stack, "AWS::Lambda::Permission")
    assert permissions
    assert all(permission["Properties"]["FunctionName"]["Ref"].endswith("Aliaslive") for permission in permissions.values())


def described(function: str) -> tuple[str, dict[str, Any]]:
    """Return the text of a version's description, and its own substitutions."""
    sub = properties(function)["VersionDescription"]["Fn::Sub"]
    return (sub, {}) if isinstance(sub, str) else (sub[0], sub[1])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_version_s_description_has_the_parameters_that_change_it(name: str) -> None:
    """With a missing one, changing it would not move the alias; with a superfluous one, Lambda would have nothing to publish."""
    makes = {key: value for key, value in properties(name).items() if key not in NOT_THE_FUNCTIONS_OWN}
    text, variables = described(name)
    parameters = [parameter for part in re.findall(r"\$\{(\w+)\}", text) for parameter in parameters_in(variables.get(part, {"Ref": part}))]
    assert sorted(parameters) == sorted(set(parameters_in(makes)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_changed_package_makes_a_new_version(name: str) -> None:
    """A fix in `requirements.txt` alone must not end up in a layer that no version uses."""
    assert properties(name)["AutoPublishAliasAllProperties"] is True
    assert tables.template()["Resources"]["Dependencies"]["Properties"]["PublishLambdaVersion"] is True


def test_without_canaries_codedeploy_is_not_needed(stack: Stack) -> None:
    """The local AWS has no CodeDeploy, and not every deployer may use it."""
    assert not [name for name, resource in stack.items() if resource["Type"].startswith("AWS::CodeDeploy")]
    assert "UpdatePolicy" not in json.dumps(stack)
    assert tables.template()["Parameters"]["CanaryDeployments"]["Default"] == "false"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_canary_gets_a_tenth_of_the_traffic_first(stack_with_canaries: Stack, name: str) -> None:
    """It is rolled back automatically if functions fail."""
    update = stack_with_canaries[f"{name}Aliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    group = stack_with_canaries[update["DeploymentGroupName"]["Ref"]]["Properties"]
    assert group["DeploymentConfigName"]["Fn::Sub"][1] == {"ConfigName": "Canary10Percent10Minutes"}
    assert {"Name": {"Ref": name.replace("Function", "ErrorsAlarm")}} in group["AlarmConfiguration"]["Alarms"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]


def test_canaries_change_only_the_update_policy_of_aliases(stack: Stack, stack_with_canaries: Stack) -> None:
    """Enabling them creates no new version and changes no function."""
    without_policies = {
        name: {key: value for key, value in resource.items() if key != "UpdatePolicy"}
        for name, resource in stack_with_canaries.items()
        if not resource["Type"].startswith("AWS::CodeDeploy") and name != "CodeDeployServiceRole"
    }
    assert without_policies == stack


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_function_error_raises_an_alarm(name: str) -> None:
    """One failure is enough: with a tenth of the traffic, a bad version may fail only once in its ten minutes."""
    alarm = tables.resources("AWS::CloudWatch::Alarm")[name.replace("Function", "ErrorsAlarm")]["Properties"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/Lambda", "Errors")
    assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": name}}]
    assert (alarm["Statistic"], alarm["ComparisonOperator"], alarm["Threshold"]) == ("Sum", "GreaterThanThreshold", 0)

"""The stack tells what the contract promises."""

import json
from typing import Any

import tables

OUTPUTS = {
    "ApiUrl",
    "SendQueueUrl",
    "SendQueueArn",
    "DeadLetterQueueUrl",
    "ProvidersTableName",
    "MessagesTableName",
    "ProviderKeyArn",
    "AttachmentsBucketName",
    "DashboardUrl",
}


def test_the_outputs_are_those_of_the_contract() -> None:
    """Callers and operators find what they need without the console."""
    assert set(tables.template()["Outputs"]) == OUTPUTS
    assert all(output["Description"] for output in tables.template()["Outputs"].values())


def test_the_api_url_is_the_base_of_the_routes() -> None:
    """It ends with the stage, without a slash: routes begin with one."""
    api = tables.template()["Resources"]["Api"]["Properties"]
    assert tables.template()["Outputs"]["ApiUrl"]["Value"]["Fn::Sub"].endswith(f"/{api['StageName']}")


def widgets() -> list[dict[str, Any]]:
    body = tables.template()["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    found: list[dict[str, Any]] = json.loads(body)["widgets"]
    return found


def test_the_dashboard_shows_queues_and_functions() -> None:
    """Depth and age of the queue, dead letters, errors and durations, on one screen 24 columns wide."""
    shown = {metric[1] for widget in widgets() for metric in widget["properties"]["metrics"] if len(metric) > 3}
    assert shown >= {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage", "Errors", "Duration"}
    assert all(widget["x"] + widget["width"] <= 24 for widget in widgets())


def test_dead_letters_raise_an_alarm() -> None:
    """One is enough, and the topic is told where there is one."""
    alarm = tables.template()["Resources"]["DeadLettersAlarm"]["Properties"]
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["DeadLetterQueue", "QueueName"]}}]
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
    assert alarm["AlarmActions"]["Fn::If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]]

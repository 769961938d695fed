"""Each alarm links to its step of the runbook and watches a metric that the code writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mailer.observability import METRICS
from support.aws import tables
from support.fakes.telemetry import NAMESPACE, STACK, Metric, a_telemetry, write_everything

ALARMS = sorted(tables.resources("AWS::CloudWatch::Alarm"))
RUNBOOK = (tables.ROOT / "docs/runbook.md").read_text()
EXPECTED = {"Unknown", "DeadLetters", "OldestMessage", "Unclassified", "Suspended", "Dependency", "SweepLag", "Overdue", "EventsLate"}
EXPECTED |= {"FeedbackDeadLetters", "FeedbackLate", "FeedbackSilent", "FeedbackForged", "FeedbackContradiction", "WebhookDeadLetters"}
EXPECTED |= {"FeedbackUnreadable"}


def alarm(name: str) -> dict[str, Any]:
    properties: dict[str, Any] = tables.template()["Resources"][name]["Properties"]
    return properties


def anchors() -> set[str]:
    """Return GitHub's anchors of the runbook's headings."""
    return {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)}


@pytest.fixture(scope="module")
def written() -> list[Metric]:
    """All metrics of the telemetry."""
    with a_telemetry() as (telemetry, output):
        write_everything(telemetry)
    return output.metrics


def dimensions(name: str) -> dict[str, str]:
    return {d["Name"]: STACK if d["Value"] == {"Ref": "AWS::StackName"} else d["Value"] for d in alarm(name)["Dimensions"]}


def test_losses_and_failures_raise_alarms() -> None:
    """Dead letters, unknowns, mail that waits for an action, and failures of the stack's services each have an alarm."""
    assert {f"{name}Alarm" for name in EXPECTED} <= set(ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_each_alarm_links_to_its_part_of_the_runbook(name: str) -> None:
    """Its text ends with the link, and that section names it."""
    text, _, anchor = alarm(name)["AlarmDescription"]["Fn::Sub"].rpartition(" ${RunbookUrl}#")
    assert text
    assert anchor in anchors()
    [part] = [part for part in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE) if part.split("\n")[0].lower().replace(" ", "-") == anchor]
    assert re.search(rf"^\*\*(\w+, )*{name}\b", part, re.MULTILINE)


@pytest.mark.parametrize("page", sorted((tables.ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_paragraph_s_first_words_in_bold_are_closed(page: Path) -> None:
    """One asterisk too many and the rest of the paragraph is bold, or shows it."""
    assert re.findall(r"^\*\*\*.*|^\*\*[^*\n]+\*[^*].*", page.read_text(encoding="utf-8"), re.MULTILINE) == []


@pytest.mark.parametrize("name", [name for name in ALARMS if alarm(name)["Namespace"] == NAMESPACE])
def test_each_alarm_watches_a_metric_that_the_code_writes(name: str, written: list[Metric]) -> None:
    """Namespace, name and all dimensions: for CloudWatch any other set is another metric, without data."""
    watched = alarm(name)["Namespace"], alarm(name)["MetricName"], dimensions(name)
    assert watched in [(metric.namespace, metric.name, metric.dimensions) for metric in written]


@pytest.mark.parametrize("name", ALARMS)
def test_each_alarm_notifies_the_topic(name: str) -> None:
    """Also when it ends; without a topic there is no notification."""
    for actions in ("AlarmActions", "OKActions"):
        assert alarm(name)[actions]["Fn::If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]]


@pytest.mark.parametrize(
    "name",
    [
        *("UnknownAlarm", "DeadLettersAlarm", "SuspendedAlarm", "UnclassifiedAlarm", "OverdueAlarm", "InternalErrorAlarm"),
        *("FeedbackForgedAlarm", "FeedbackContradictionAlarm", "FeedbackDeadLettersAlarm", "FeedbackUnreadableAlarm"),
    ],
)
def test_one_case_that_needs_an_operator_raises_the_alarm(name: str) -> None:
    """These cases do not resolve themselves."""
    assert (alarm(name)["ComparisonOperator"], alarm(name)["Threshold"]) == ("GreaterThanThreshold", 0)
    assert (alarm(name)["EvaluationPeriods"], alarm(name)["TreatMissingData"]) == (1, "notBreaching")


def test_missing_sweeper_metrics_raise_the_lag_alarm() -> None:
    """The sweeper writes its metric every minute; only for it missing data raises an alarm."""
    assert {name for name in ALARMS if alarm(name)["TreatMissingData"] != "notBreaching"} == {"SweepLagAlarm"}
    assert alarm("SweepLagAlarm")["TreatMissingData"] == "breaching"


def test_metrics_have_the_name_of_the_stack() -> None:
    """Two stacks in one account do not trigger each other's alarms."""
    shared = tables.template()["Globals"]["Function"]["Environment"]["Variables"]
    assert (shared["POWERTOOLS_SERVICE_NAME"], shared["POWERTOOLS_METRICS_NAMESPACE"]) == ({"Ref": "AWS::StackName"}, NAMESPACE)


def test_the_runbook_lists_every_metric() -> None:
    """With its dimensions."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|\s*(?:`(\w+)`)?\s*\| [^|]+ \|$", RUNBOOK.partition("## Metrics")[2], re.MULTILINE)
    assert dict(rows) == {name: next(iter(own), "") for name, own in METRICS.items()}


# -- the dashboard -------------------------------------------------------------------------------------------------------


def widgets(kind: str | None = None) -> list[dict[str, Any]]:
    body, variables = tables.template()["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    for name, value in variables.items():  # as in a stack with all options
        body = body.replace(f"${{{name}}}", value["Fn::If"][1]["Fn::Sub"])
    found: list[dict[str, Any]] = json.loads(body)["widgets"]
    return [widget for widget in found if kind in (None, widget["type"])]


def test_the_dashboard_shows_every_alarm() -> None:
    """The first row shows which of them are active."""
    [shown] = widgets("alarm")
    assert sorted(shown["properties"]["alarms"]) == [f"${{{name}.Arn}}" for name in ALARMS]


def test_the_widgets_do_not_overlap() -> None:
    """The dashboard is 24 columns wide."""
    taken: set[tuple[int, int]] = set()
    for widget in widgets():
        cells = {
            (x, y) for x in range(widget["x"], widget["x"] + widget["width"]) for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_dashboard_shows_metrics_that_the_code_writes(written: list[Metric]) -> None:
    """Each metric of the dashboard has data."""
    rows = [row for widget in widgets("metric") for row in widget["properties"]["metrics"]]
    named = {row[1] for row in rows if row[0] == NAMESPACE}
    searched = {
        (match[2], match[1])
        for row in rows
        if "expression" in row[0]
        for match in [re.search(r"service,(\w+)}.*=\"(\w+)\"", row[0]["expression"])]
        if match
    }
    assert named <= {metric.name for metric in written if set(metric.dimensions) == {"service"}}
    assert searched <= {(metric.name, dimension) for metric in written for dimension in metric.dimensions}
    assert {name for name, _ in searched} == {"RequestFailed", "RequestDeferred", "DependencyFailed", "FeedbackRefused"}


def test_the_dashboard_queries_match_the_log_lines() -> None:
    """Its queries use only messages and fields that the code logs."""
    with a_telemetry() as (telemetry, written):
        write_everything(telemetry)
    for widget in widgets("log"):
        query = widget["properties"]["query"]
        [named] = re.findall(r"message (?:= ('[^']+')|in \[([^]]+)\])", query)
        messages = {quoted.strip("'") for quoted in "".join(named).split(", ")}
        assert messages <= {line["message"] for line in written.log}
        fields = {name for line in written.log if line["message"] in messages for name in line}
        lists = re.findall(r"(?:by|fields) ([\w, @]+?)(?: \||$)", query)
        used = {name for one_list in lists for name in one_list.split(", ")} | set(re.findall(r"latest\((\w+)\)", query))
        assert used - set(re.findall(r" as (\w+)", query)) - {"@timestamp"} <= fields
        assert set(re.findall(r"\$\{(\w+)\}", query)) <= set(tables.resources("AWS::Logs::LogGroup"))


def test_the_dashboard_leaves_out_resolved_requests() -> None:
    """Only a request's last line counts: one that was sent or resolved is no longer in trouble."""
    [_, _, _, _, message, latest, unresolved, counted, *_] = widgets("log")[0]["properties"]["query"].split(" | ")
    assert message == "filter message in ['provider answered', 'request recorded'] and ispresent(status)"
    assert latest.startswith("stats latest(status) as now, latest(code) as why, latest(hint) as todo")
    assert latest.endswith("by tenant_id, request_id")
    assert unresolved == "filter now in ['failed', 'deferred', 'unknown'] and ispresent(why)"
    assert counted.endswith("by tenant_id, now, why, todo")

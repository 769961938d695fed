"""The functions have the properties that the code expects."""

import importlib
import json
import re
from typing import Any

import pytest

from mailer.domain.delivery import END_STATUSES, Status
from mailer.domain.statistics import counted
from mailer.settings import ALIAS, Settings
from support.aws import tables
from support.fakes.ports import a_delivery

FUNCTIONS = sorted(tables.resources("AWS::Serverless::Function"))
POWERTOOLS = {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_LOG_LEVEL"}


def function(name: str) -> dict[str, Any]:
    """Return a function's properties merged with those of `Globals`."""
    properties: dict[str, Any] = tables.template()["Resources"][name]["Properties"]
    return {**tables.template()["Globals"]["Function"], **properties}


class Asked(dict[str, str]):
    """An environment that records the names read from it."""

    def get(self, key: str, default: Any = None) -> Any:
        self[key] = ""
        return default


def names_that_settings_read() -> set[str]:
    Settings.from_environment(asked := Asked())
    return {name for name in asked if not name.startswith("AWS_")}  # Lambda's own, and the SDK's


def test_there_are_few_functions() -> None:
    """Few enough to remember."""
    assert FUNCTIONS == [
        "FeedbackFunction",
        "MessagesFunction",
        "ProvidersFunction",
        "PublishFunction",
        "SendFunction",
        "StatisticsFunction",
        "SweepFunction",
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_handler_can_be_imported(name: str) -> None:
    """The path in the template is a function."""
    module, _, attribute = function(name)["Handler"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_runs_the_python_of_the_project(name: str) -> None:
    """On the architecture of the parameter, with the packages of the layer."""
    version = (tables.ROOT / ".python-version").read_text().strip()
    assert function(name)["Runtime"] == f"python{version}"
    assert function(name)["Architectures"] == [{"Ref": "Architecture"}]
    assert function(name)["Layers"] == [{"Ref": "Dependencies"}]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_has_a_role_and_a_log_group_of_its_own(name: str) -> None:
    """No function shares another's rights, and logs expire."""
    assert function(name)["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
    assert function(name)["LoggingConfig"] == {"LogGroup": {"Ref": f"{name}Logs"}}
    assert tables.template()["Resources"][f"{name}Logs"]["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_variable_is_one_that_the_code_reads(name: str) -> None:
    """An unused variable is a mistake, as is a value that is not a string."""
    assert set(tables.variables(name)) <= names_that_settings_read() | POWERTOOLS
    assert all(isinstance(value, (str, dict)) for value in tables.variables(name).values())


def test_each_setting_is_given_to_some_function() -> None:
    """No setting keeps its default by mistake."""
    given = {variable for name in FUNCTIONS for variable in tables.variables(name)}
    assert given >= names_that_settings_read() | POWERTOOLS


def test_all_know_the_timeout_of_the_send_function() -> None:
    """It decides when a worker counts as dead; a wrong one would send mail twice."""
    told = {name: tables.variables(name).get("SEND_TIMEOUT_SECONDS") for name in FUNCTIONS}
    expected = str(function("SendFunction")["Timeout"])
    who_must_know = ("SendFunction", "MessagesFunction", "SweepFunction")
    assert told == dict.fromkeys(FUNCTIONS) | dict.fromkeys(who_must_know, expected)


def test_a_message_stays_invisible_for_six_times_the_timeout() -> None:
    """AWS's recommendation: otherwise a message could be redelivered while its first worker still runs."""
    queue = tables.resources("AWS::SQS::Queue")["SendQueue"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * function("SendFunction")["Timeout"]


def test_the_send_function_may_call_itself_through_its_queue() -> None:
    """Waiting mail is requeued; Lambda's loop detection would drop it after 16 rounds."""
    assert function("SendFunction")["RecursiveLoop"] == "Allow"


def test_one_bad_message_does_not_return_its_batch() -> None:
    """The event source uses batch item failures and has a concurrency limit."""
    [event] = function("SendFunction")["Events"].values()
    source = event["Properties"]
    assert event["Type"] == "SQS"
    assert source["Queue"] == {"Fn::GetAtt": ["SendQueue", "Arn"]}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "SendConcurrency"}}


def test_the_send_function_knows_how_many_of_it_run() -> None:
    """They share the sends without a booking: with a wrong number they would together exceed the account's rate."""
    [event] = function("SendFunction")["Events"].values()
    assert tables.variables("SendFunction")["SEND_CONCURRENCY"] == event["Properties"]["ScalingConfig"]["MaximumConcurrency"]


def test_a_large_batch_has_the_window_that_sqs_asks_for() -> None:
    """Without it the event source could not be created."""
    [event] = function("SendFunction")["Events"].values()
    assert event["Properties"]["BatchSize"] == 100
    assert event["Properties"]["MaximumBatchingWindowInSeconds"] == 1


def test_runs_of_the_sweeper_do_not_meet() -> None:
    """Each ends before the next minute, and a failed one is not retried."""
    sweeper = function("SweepFunction")
    [event] = sweeper["Events"].values()
    assert event["Properties"]["Schedule"] == "rate(1 minute)"
    assert sweeper["Timeout"] < 60
    assert sweeper["EventInvokeConfig"]["MaximumRetryAttempts"] == 0
    assert sweeper["EventInvokeConfig"]["MaximumEventAgeInSeconds"] == 60  # those that it starts itself, too


def test_the_sweeper_calls_itself_by_its_alias() -> None:
    """Which its settings name, and whose retries the template turns off."""
    assert tables.template()["Globals"]["Function"]["AutoPublishAlias"] == ALIAS
    assert function("SweepFunction")["Environment"]["Variables"]["SWEEP_CONCURRENCY"] == {"Ref": "SweepConcurrency"}


def streams() -> dict[str, dict[str, Any]]:
    events: dict[str, dict[str, Any]] = function("PublishFunction")["Events"]
    assert {event["Type"] for event in events.values()} == {"DynamoDB"}
    return {event["Properties"]["Stream"]["Fn::GetAtt"][0]: event["Properties"] for event in events.values()}


def test_telling_misses_no_write() -> None:
    """From the first write on, without limits of retries or age, and with old images."""
    assert set(streams()) == {"MessagesTable", "ProvidersTable", "SuppressionsTable"}
    for table, source in streams().items():
        assert source["StartingPosition"] == "TRIM_HORIZON"
        assert not {"MaximumRetryAttempts", "MaximumRecordAgeInSeconds"} & set(source)
        specification = tables.template()["Resources"][table]["Properties"]["StreamSpecification"]
        assert specification == {"StreamViewType": "NEW_AND_OLD_IMAGES"}


def patterns(table: str) -> list[dict[str, Any]]:
    return [json.loads(filter_["Pattern"]) for filter_ in streams()[table]["FilterCriteria"]["Filters"]]


def test_telling_is_called_for_ends_alone() -> None:
    """Open requests cause no invocation, nor do expired records."""
    [pattern] = patterns("MessagesTable")
    assert set(pattern["dynamodb"]["NewImage"]["status"]["S"]) == {status.value for status in END_STATUSES}
    assert pattern["eventName"] == ["INSERT", "MODIFY"]
    assert patterns("ProvidersTable") == [{"eventName": ["INSERT", "MODIFY"]}]


def test_counting_misses_no_write_and_knows_the_shard() -> None:
    """Writes are deduplicated by their order in a shard: one invocation per shard, and a window, with which Lambda passes its id."""
    [event] = function("StatisticsFunction")["Events"].values()
    source = event["Properties"]
    assert (event["Type"], source["Stream"]) == ("DynamoDB", {"Fn::GetAtt": ["MessagesTable", "StreamArn"]})
    assert source["StartingPosition"] == "TRIM_HORIZON"
    assert source["TumblingWindowInSeconds"] > 0
    assert not {"MaximumRetryAttempts", "MaximumRecordAgeInSeconds", "ParallelizationFactor"} & set(source)


def test_counting_hears_of_every_record_that_was_or_is_counted() -> None:
    """Requests that end, and ended requests that are sent again."""
    [event] = function("StatisticsFunction")["Events"].values()
    ends, ended = [json.loads(one["Pattern"]) for one in event["Properties"]["FilterCriteria"]["Filters"]]
    everything = {status.value for status in Status if of_a_record(status)}
    assert set(ends["dynamodb"]["NewImage"]["status"]["S"]) == set(ended["dynamodb"]["OldImage"]["status"]["S"]) == everything
    assert (ends["eventName"], ended["eventName"]) == (["INSERT", "MODIFY"], ["MODIFY"])


def of_a_record(status: Status) -> object:
    return counted(a_delivery(status=status))


@pytest.mark.parametrize("name", ["MessagesFunction", "ProvidersFunction"])
def test_functions_behind_the_api_end_before_it_gives_up(name: str) -> None:
    """API Gateway returns 504 after 29 s, even if the function still runs."""
    assert function(name)["Timeout"] < 29


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tracing_is_off_unless_the_parameter_says_otherwise(name: str) -> None:
    """Tracing costs a third of a second at each cold start."""
    assert function(name)["Tracing"] == {"Fn::If": ["IsTraced", "Active", "PassThrough"]}
    assert tables.template()["Parameters"]["Tracing"]["Default"] == "off"


def test_each_parameter_is_described_and_bounded() -> None:
    """A wrong value is rejected before the deployment."""
    bounds = {"AllowedPattern", "AllowedValues", "MinValue"}
    for name, parameter in tables.template()["Parameters"].items():
        assert parameter["Description"], name
        assert bounds & set(parameter), name
        assert "Default" in parameter, name


@pytest.mark.parametrize("value", ["", "arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:role/shop/producer"])
def test_producers_are_named_by_arn_or_not_at_all(value: str) -> None:
    """The stack can be deployed without producers."""
    assert re.fullmatch(tables.template()["Parameters"]["ProducerArns"]["AllowedPattern"], value)


@pytest.mark.parametrize("value", ["*", "111122223333", "arn:aws:iam::111122223333:role/*"])
def test_nobody_in_general_is_a_producer(value: str) -> None:
    """A wildcard would allow any AWS account to send as every tenant."""
    assert not re.fullmatch(tables.template()["Parameters"]["ProducerArns"]["AllowedPattern"], value)

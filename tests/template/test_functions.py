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


class RecordingEnvironment(dict[str, str]):
    """An environment that records the names read from it."""

    def get(self, key: str, default: Any = None) -> Any:
        self[key] = ""
        return default


def names_that_settings_read() -> set[str]:
    Settings.from_environment(environment := RecordingEnvironment())
    return {name for name in environment if not name.startswith("AWS_")}  # Lambda's own, and the SDK's


def test_there_are_few_functions() -> None:
    """The list grows only on purpose."""
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
def test_each_variable_is_read_by_the_code(name: str) -> None:
    """An unused variable is a mistake, as is a value that is not a string."""
    assert set(tables.variables(name)) <= names_that_settings_read() | POWERTOOLS
    assert all(isinstance(value, (str, dict)) for value in tables.variables(name).values())


def test_each_setting_is_set_for_some_function() -> None:
    """No setting has its default by mistake."""
    set_variables = {variable for name in FUNCTIONS for variable in tables.variables(name)}
    assert set_variables >= names_that_settings_read() | POWERTOOLS


def test_functions_that_judge_workers_have_the_send_timeout() -> None:
    """The timeout decides when a worker counts as dead; a wrong one would send mail twice."""
    timeouts = {name: tables.variables(name).get("SEND_TIMEOUT_SECONDS") for name in FUNCTIONS}
    expected = str(function("SendFunction")["Timeout"])
    users = ("SendFunction", "MessagesFunction", "SweepFunction")
    assert timeouts == dict.fromkeys(FUNCTIONS) | dict.fromkeys(users, expected)


def test_the_visibility_timeout_is_six_times_the_function_s_timeout() -> None:
    """AWS's recommendation: otherwise a message could be redelivered while its first worker still runs."""
    queue = tables.resources("AWS::SQS::Queue")["SendQueue"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * function("SendFunction")["Timeout"]


def test_recursive_loop_detection_is_off_for_the_send_function() -> None:
    """Waiting mail is requeued; Lambda's loop detection would drop it after 16 rounds."""
    assert function("SendFunction")["RecursiveLoop"] == "Allow"


def test_a_failed_message_is_returned_alone() -> None:
    """The event source uses batch item failures and has a concurrency limit."""
    [event] = function("SendFunction")["Events"].values()
    source = event["Properties"]
    assert event["Type"] == "SQS"
    assert source["Queue"] == {"Fn::GetAtt": ["SendQueue", "Arn"]}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "SendConcurrency"}}


def test_the_send_function_has_its_own_concurrency_limit_as_a_setting() -> None:
    """The functions divide the unbooked sends by it: with a wrong number they would together exceed the account's rate."""
    [event] = function("SendFunction")["Events"].values()
    assert tables.variables("SendFunction")["SEND_CONCURRENCY"] == event["Properties"]["ScalingConfig"]["MaximumConcurrency"]


def test_a_large_batch_has_the_batching_window_that_lambda_requires() -> None:
    """Without it the event source could not be created."""
    [event] = function("SendFunction")["Events"].values()
    assert event["Properties"]["BatchSize"] == 100
    assert event["Properties"]["MaximumBatchingWindowInSeconds"] == 1


def test_sweeper_runs_do_not_overlap() -> None:
    """Each ends before the next minute, and a failed one is not retried."""
    sweeper = function("SweepFunction")
    [event] = sweeper["Events"].values()
    assert event["Properties"]["Schedule"] == "rate(1 minute)"
    assert sweeper["Timeout"] < 60
    assert sweeper["EventInvokeConfig"]["MaximumRetryAttempts"] == 0
    assert sweeper["EventInvokeConfig"]["MaximumEventAgeInSeconds"] == 60  # also invocations that it starts itself


def test_the_sweeper_invokes_itself_by_its_alias() -> None:
    """The settings name the alias, and the template disables its retries."""
    assert tables.template()["Globals"]["Function"]["AutoPublishAlias"] == ALIAS
    assert function("SweepFunction")["Environment"]["Variables"]["SWEEP_CONCURRENCY"] == {"Ref": "SweepConcurrency"}


def streams() -> dict[str, dict[str, Any]]:
    events: dict[str, dict[str, Any]] = function("PublishFunction")["Events"]
    assert {event["Type"] for event in events.values()} == {"DynamoDB"}
    return {event["Properties"]["Stream"]["Fn::GetAtt"][0]: event["Properties"] for event in events.values()}


def test_publishing_reads_every_write() -> None:
    """It reads from the first write on, without limits of retries or age, and with old images."""
    assert set(streams()) == {"MessagesTable", "ProvidersTable", "SuppressionsTable"}
    for table, source in streams().items():
        assert source["StartingPosition"] == "TRIM_HORIZON"
        assert not {"MaximumRetryAttempts", "MaximumRecordAgeInSeconds"} & set(source)
        specification = tables.template()["Resources"][table]["Properties"]["StreamSpecification"]
        assert specification == {"StreamViewType": "NEW_AND_OLD_IMAGES"}


def patterns(table: str) -> list[dict[str, Any]]:
    return [json.loads(filter_["Pattern"]) for filter_ in streams()[table]["FilterCriteria"]["Filters"]]


def test_publishing_is_invoked_for_final_statuses_only() -> None:
    """Open requests and expired records cause no invocation."""
    [pattern] = patterns("MessagesTable")
    assert set(pattern["dynamodb"]["NewImage"]["status"]["S"]) == {status.value for status in END_STATUSES}
    assert pattern["eventName"] == ["INSERT", "MODIFY"]
    assert patterns("ProvidersTable") == [{"eventName": ["INSERT", "MODIFY"]}]


def test_statistics_reads_every_write_and_the_shard_id() -> None:
    """Writes are deduplicated by their order in a shard: one invocation per shard, and a tumbling window, in which Lambda passes its id."""
    [event] = function("StatisticsFunction")["Events"].values()
    source = event["Properties"]
    assert (event["Type"], source["Stream"]) == ("DynamoDB", {"Fn::GetAtt": ["MessagesTable", "StreamArn"]})
    assert source["StartingPosition"] == "TRIM_HORIZON"
    assert source["TumblingWindowInSeconds"] > 0
    assert not {"MaximumRetryAttempts", "MaximumRecordAgeInSeconds", "ParallelizationFactor"} & set(source)


def test_statistics_is_invoked_for_every_counted_record() -> None:
    """It is invoked for requests that end and for ended requests that are sent again."""
    [event] = function("StatisticsFunction")["Events"].values()
    now_counted, counted_before = [json.loads(one["Pattern"]) for one in event["Properties"]["FilterCriteria"]["Filters"]]
    counted_statuses = {status.value for status in Status if is_counted(status)}
    assert (
        set(now_counted["dynamodb"]["NewImage"]["status"]["S"])
        == set(counted_before["dynamodb"]["OldImage"]["status"]["S"])
        == counted_statuses
    )
    assert (now_counted["eventName"], counted_before["eventName"]) == (["INSERT", "MODIFY"], ["MODIFY"])


def is_counted(status: Status) -> object:
    return counted(a_delivery(status=status))


@pytest.mark.parametrize("name", ["MessagesFunction", "ProvidersFunction"])
def test_api_functions_time_out_before_api_gateway(name: str) -> None:
    """API Gateway returns 504 after 29 s, even if the function still runs."""
    assert function(name)["Timeout"] < 29


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tracing_is_off_by_default(name: str) -> None:
    """Tracing costs a third of a second at each cold start."""
    assert function(name)["Tracing"] == {"Fn::If": ["IsTraced", "Active", "PassThrough"]}
    assert tables.template()["Parameters"]["Tracing"]["Default"] == "off"


def test_each_parameter_has_a_description_and_a_constraint() -> None:
    """A wrong value is rejected before the deployment."""
    bounds = {"AllowedPattern", "AllowedValues", "MinValue"}
    for name, parameter in tables.template()["Parameters"].items():
        assert parameter["Description"], name
        assert bounds & set(parameter), name
        assert "Default" in parameter, name


@pytest.mark.parametrize("value", ["", "arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:role/shop/producer"])
def test_producer_arns_may_be_empty_or_arns(value: str) -> None:
    """The stack can be deployed without producers."""
    assert re.fullmatch(tables.template()["Parameters"]["ProducerArns"]["AllowedPattern"], value)


@pytest.mark.parametrize("value", ["*", "111122223333", "arn:aws:iam::111122223333:role/*"])
def test_producer_arns_with_wildcards_are_refused(value: str) -> None:
    """A wildcard would allow any AWS account to send as every tenant."""
    assert not re.fullmatch(tables.template()["Parameters"]["ProducerArns"]["AllowedPattern"], value)

"""Reading log lines: the requested messages of every log group, and only our own lines."""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

from mailer_ops.adapters.outcome_log import CloudWatchLog, OperatorsLog
from mailer_ops.operations.request_log import STATE_MESSAGES
from support.fakes.ports import NOON


class Groups:
    """CloudWatch Logs with some events in each group, one page per event; like an emulator it does not filter."""

    def __init__(self, **events: list[str]) -> None:
        self.events = events
        self.calls: list[dict[str, Any]] = []

    def get_paginator(self, operation: str) -> "Groups":
        assert operation == "filter_log_events"
        return self

    def paginate(self, **call: Any) -> Iterator[dict[str, Any]]:
        self.calls.append(call)
        for message in self.events[call["logGroupName"]]:
            yield {"events": [{"message": message}]}


def test_lines_with_the_messages_are_read_from_every_group() -> None:
    """Lines of the runtime and our other lines are left out."""
    expected = [json.dumps({"message": message}) for message in ("request recorded", "provider answered", "request recorded")]
    send = [expected[0], "START RequestId: 1", json.dumps({"message": "swept"}), expected[1]]
    groups = Groups(send=send, sweep=["[1]", expected[2]])
    assert list(CloudWatchLog(groups, ["send", "sweep"]).lines(STATE_MESSAGES, NOON)) == expected


def test_cloudwatch_filters_by_message_and_time() -> None:
    """The call has a filter pattern and a start time."""
    groups = Groups(send=[])
    assert list(CloudWatchLog(groups, ["send"]).lines(["swept", "step failed"], NOON)) == []
    pattern = '{ $.message = "swept" || $.message = "step failed" }'
    assert groups.calls == [{"logGroupName": "send", "startTime": int(NOON.timestamp() * 1000), "filterPattern": pattern}]


def test_an_operator_s_lines_are_written_to_the_log_group() -> None:
    """They are in their own stream, each line once, at most a thousand per call."""
    client, log = Mock(), OperatorsLog()
    log.write("".join(f"line {number}\n" for number in range(1500)))
    log.keep(client, "messages")
    [created] = client.create_log_stream.call_args_list
    calls = [call.kwargs for call in client.put_log_events.call_args_list]
    assert {(call["logGroupName"], call["logStreamName"]) for call in calls} == {("messages", created.kwargs["logStreamName"])}
    assert [event["message"] for call in calls for event in call["logEvents"]] == [f"line {number}" for number in range(1500)]
    assert [len(call["logEvents"]) for call in calls] == [1000, 500]

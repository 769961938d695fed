"""Log lines as they are read back: those that were asked for, of every group, and nothing that is no line of ours."""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

from mailer_ops.adapters.outcome_log import CloudWatchLog, OperatorsLog
from mailer_ops.operations.request_log import STATE_MESSAGES
from support.fakes.ports import NOON


class Groups:
    """CloudWatch Logs with some events in each group, two pages each, which like an emulator's come unfiltered."""

    def __init__(self, **events: list[str]) -> None:
        self.events = events
        self.asked: list[dict[str, Any]] = []

    def get_paginator(self, operation: str) -> "Groups":
        assert operation == "filter_log_events"
        return self

    def paginate(self, **asked: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(asked)
        for message in self.events[asked["logGroupName"]]:
            yield {"events": [{"message": message}]}


def test_the_lines_with_a_message_are_read_from_every_group() -> None:
    """Page by page; what the runtime writes, and other lines of ours, are left out."""
    wanted = [json.dumps({"message": message}) for message in ("request recorded", "provider answered", "request recorded")]
    send = [wanted[0], "START RequestId: 1", json.dumps({"message": "swept"}), wanted[1]]
    groups = Groups(send=send, sweep=["[1]", wanted[2]])
    assert list(CloudWatchLog(groups, ["send", "sweep"]).lines(STATE_MESSAGES, NOON)) == wanted


def test_cloudwatch_is_asked_for_no_more_than_that() -> None:
    """It filters by the message, and looks back no further than it was told."""
    groups = Groups(send=[])
    assert list(CloudWatchLog(groups, ["send"]).lines(["swept", "step failed"], NOON)) == []
    pattern = '{ $.message = "swept" || $.message = "step failed" }'
    assert groups.asked == [{"logGroupName": "send", "startTime": int(NOON.timestamp() * 1000), "filterPattern": pattern}]


def test_what_an_operator_does_is_put_beside_the_functions_lines() -> None:
    """In a stream of its own, each line once, at most a thousand a call."""
    client, log = Mock(), OperatorsLog()
    log.write("".join(f"line {number}\n" for number in range(1500)))
    log.keep(client, "messages")
    [made] = client.create_log_stream.call_args_list
    put = [call.kwargs for call in client.put_log_events.call_args_list]
    assert {(call["logGroupName"], call["logStreamName"]) for call in put} == {("messages", made.kwargs["logStreamName"])}
    assert [event["message"] for call in put for event in call["logEvents"]] == [f"line {number}" for number in range(1500)]
    assert [len(call["logEvents"]) for call in put] == [1000, 500]

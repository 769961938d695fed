"""Log lines as they are read back: those that were asked for, of every group, and nothing that is no line of ours."""

import json
from collections.abc import Iterator
from typing import Any

from fakes import NOON
from mailer.adapters.outcome_log import CloudWatchLog


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


def test_the_lines_with_the_message_are_read_from_every_group() -> None:
    """Page by page; what the runtime writes, and other lines of ours, are left out."""
    wanted = [{"message": "request recorded", "number": number} for number in range(3)]
    send = [json.dumps(wanted[0]), "START RequestId: 1", json.dumps({"message": "swept"}), json.dumps(wanted[1])]
    groups = Groups(send=send, sweep=["[1]", json.dumps(wanted[2])])
    assert list(CloudWatchLog(groups, ["send", "sweep"]).lines("request recorded", NOON)) == wanted


def test_cloudwatch_is_asked_for_no_more_than_that() -> None:
    """It filters by the message, and looks back no further than it was told."""
    groups = Groups(send=[])
    assert list(CloudWatchLog(groups, ["send"]).lines("swept", NOON)) == []
    milliseconds = int(NOON.timestamp() * 1000)
    assert groups.asked == [{"logGroupName": "send", "startTime": milliseconds, "filterPattern": '{ $.message = "swept" }'}]

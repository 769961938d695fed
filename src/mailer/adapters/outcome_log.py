"""Read the functions' log lines back, as operators do who look for who is in trouble."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any


class CloudWatchLog:
    """The log groups of one stack's functions."""

    def __init__(self, client: Any, groups: Sequence[str]) -> None:
        self._client = client
        self._groups = groups

    def lines(self, message: str, since: datetime) -> Iterator[dict[str, Any]]:
        """Yield the lines with a message, group by group, each group's oldest first."""
        wanted = {"startTime": int(since.timestamp() * 1000), "filterPattern": f'{{ $.message = "{message}" }}'}
        for group in self._groups:
            for page in self._client.get_paginator("filter_log_events").paginate(logGroupName=group, **wanted):
                found = (_parsed(event["message"]) for event in page["events"])
                # Emulators take no pattern for JSON, and answer with every line.
                yield from (line for line in found if line.get("message") == message)


def _parsed(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}

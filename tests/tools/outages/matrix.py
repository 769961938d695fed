"""Run every cell in parallel, each with its own worker and fault proxy, so that no cell disturbs another."""

import json
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mailer.adapters.dynamodb.messages_table import from_item, record_key
from mailer.domain.delivery import Delivery, Status
from tools.local_aws import worker
from tools.local_aws.running import LocalAws
from tools.local_aws.server import endpoints
from tools.local_aws.standalone import StandaloneSes, standalone_ses
from tools.local_aws.tenants import Tenant
from tools.outages.cells import ATTEMPTS, EXPECTED, FILES, NO_RECORD, OUTAGES, OWN, PLACES, SLOW, VERIFY, Course, Outage

PARALLEL = 8
"""As many as there are cells that hang; with more of the others, calls would time out for lack of CPU."""

DONE = 75.0  # seconds after which a function has reached its timeout
SCHEDULED = timedelta(seconds=20)
"""Far enough ahead that no worker starts after it; a message that waits until then needs SQS."""

RATE = 500  # recipients per second and account: high, because pacing is not tested here
HEALED = 60.0  # seconds within which a request ends after the fault

Cell = tuple[str, Outage]


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one cell."""

    course: Course
    calls: int
    """Calls that the failing service received."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Response of `verify` in one cell."""

    status: int
    media_type: str
    body: Mapping[str, Any]
    seconds: float


class Matrix:
    """All cells on one local AWS, whose own SendFunction is paused during the faults."""

    def __init__(self, aws: LocalAws, folder: Path) -> None:
        self._aws, self._folder = aws, folder
        self._env = {name: worker.environment(aws, name, **worker.session_of(aws, name)) for name in ("SendFunction", "ProvidersFunction")}
        self.tenants = {by_role: self._open(by_role=by_role) for by_role in (False, True)}
        self.results: dict[Cell, Result] = {}
        self.verified: dict[Cell, Verified] = {}

    def run(self) -> None:
        """Run all cells, then remove the faults and wait for the results."""
        cells: list[Cell] = [(place, outage) for outage in OUTAGES for place in PLACES if outage in EXPECTED[place]]
        calls: list[Cell] = [(place, outage) for outage in OUTAGES for place in VERIFY]
        self._operate("pause")
        try:
            with standalone_ses(self._folder / "ses", self._fronts(cells, calls)) as wire, ThreadPoolExecutor(PARALLEL) as pool:
                first = dict(zip(cells, pool.map(lambda cell: self._send(wire, cell), cells), strict=True))
                self.verified = dict(zip(calls, pool.map(lambda cell: self._verify(wire, cell), calls), strict=True))
                calls_of = {cell: len(wire.control.requests(service=_front(cell))) for cell in cells}
        finally:
            self._operate("resume")
        for cell, (record, accepted) in first.items():
            self._aws.api.wait_for(self._tenant(cell).tenant_id, _request_id(cell), seconds=HEALED)
            self.results[cell] = Result(Course(_shown(record), accepted, _shown(self._record(cell)), self._accepted(cell)), calls_of[cell])

    def table(self) -> str:
        """Return the results as a Markdown table."""
        names: list[Outage] = sorted(OUTAGES)
        lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
        for place in PLACES:
            seen = [str(self.results[place, outage].course) if (place, outage) in self.results else "–" for outage in names]
            lines.append(f"| {place} | {' | '.join(seen)} |")
        for place in VERIFY:
            responses = [self.verified[place, outage] for outage in names]
            lines.append(f"| {place}, in `verify` | {' | '.join(f'{one.status} after {one.seconds:.0f} s' for one in responses)} |")
        return "\n".join(lines)

    # -- the cells -------------------------------------------------------------------------------------------------------

    def _send(self, wire: StandaloneSes, cell: Cell) -> tuple[Delivery | None, int]:
        """Pass the request to a worker during the fault; put it back on the queue, as SQS does, if the worker reports it as failed."""
        body = self._body(cell)
        self._break(wire, cell)
        env = self._env["SendFunction"] | _endpoints(wire, cell)
        with worker.start(worker.handle, worker.sqs_event(body), env=env, log=self._folder / "worker.log") as process:
            answer = process.next_result(DONE)
        seen = (self._record(cell), self._accepted(cell))
        if answer["batchItemFailures"]:
            self._aws.enqueue(body)
        return seen

    def _verify(self, wire: StandaloneSes, cell: Cell) -> Verified:
        self._break(wire, cell, verify=True)
        env = self._env["ProvidersFunction"] | _endpoints(wire, cell, verify=True)
        began = time.monotonic()
        with worker.start(worker.verify, self._tenant(cell).tenant_id, env=env, log=self._folder / "worker.log") as process:
            status, media_type, body = process.next_result(DONE)
        return Verified(status, media_type, body, time.monotonic() - began)

    def _fronts(self, cells: Iterable[Cell], calls: Iterable[Cell]) -> dict[str, tuple[str, int]]:
        """Return a proxy for each cell, by its name, and the service behind it."""
        fronts = [(cell, False) for cell in cells] + [(cell, True) for cell in calls]
        return {_front(cell, verify=verify): self._address(PLACES[cell[0]].service) for cell, verify in fronts}

    def _address(self, service: str) -> tuple[str, int]:
        url = urlsplit(self._aws.addresses.services[service])
        assert url.hostname
        assert url.port
        return url.hostname, url.port

    def _break(self, wire: StandaloneSes, cell: Cell, *, verify: bool = False) -> None:
        place, outage = PLACES[cell[0]], cell[1]
        front = _front(cell, verify=verify)
        rule: dict[str, Any] = {} if verify else dict(place.rule)
        if place.service == "dynamodb" and rule:
            rule["text"] = self._aws.stack.outputs["MessagesTableName"]
        if outage == "refuse":
            wire.control.set_listening(front, "refuse")
        elif outage == "hang":
            times = ATTEMPTS if place.service in OWN else 0
            wire.control.inject("hang", service=front, times=times, **rule)
        elif outage == "slow":
            wire.control.inject("slow", service=front, when="after", seconds=SLOW, **rule)
        else:
            wire.control.inject(outage, service=front, **{"when": "after" if outage == "truncate" else "before", **rule})

    # -- the requests ----------------------------------------------------------------------------------------------------

    def _open(self, *, by_role: bool) -> Tenant:
        tenant = self._aws.tenants.open()
        provider = tenant.provider()
        if by_role:
            template = self._aws.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"]
            provider = tenant.provider_by_role(self._aws.tenants.launch_role(tenant, template))
        provider["config"]["maxSendRate"] = RATE
        stored, verified = self._aws.api.put_provider(tenant.tenant_id, provider), self._aws.api.verify(tenant.tenant_id)
        assert (stored.status, verified.status) == (200, 200), (stored.body, verified.body)
        return tenant

    def _tenant(self, cell: Cell) -> Tenant:
        return self.tenants[PLACES[cell[0]].by_role]

    def _body(self, cell: Cell) -> str:
        place, tenant = PLACES[cell[0]], self._tenant(cell)
        message: dict[str, Any] = {
            "to": [{"email": f"{_request_id(cell)}@customer.example"}],
            "subject": "In an outage",
            "text": "Hello",
        }
        request: dict[str, Any] = {"tenantId": tenant.tenant_id, "requestId": _request_id(cell), "message": message}
        if place.message == "scheduled":
            request["sendAt"] = f"{datetime.now(UTC) + SCHEDULED:%Y-%m-%dT%H:%M:%SZ}"
        if place.message in FILES:
            key = f"{tenant.tenant_id}/{_request_id(cell)}"
            bucket = self._aws.stack.outputs["AttachmentsBucketName"]
            self._aws.client("s3").put_object(
                Bucket=bucket, Key=f"attachments/{key}", Body=bytes(FILES[place.message]), ContentType="application/pdf"
            )
            message["attachments"] = [{"filename": "invoice.pdf", "s3": {"key": key}}]
        return json.dumps(request)

    def _record(self, cell: Cell) -> Delivery | None:
        key = record_key(self._tenant(cell).tenant_id, _request_id(cell))
        found = self._aws.client("dynamodb").get_item(TableName=self._aws.stack.outputs["MessagesTableName"], Key=key, ConsistentRead=True)
        return from_item(found["Item"]) if "Item" in found else None

    def _accepted(self, cell: Cell) -> int:
        mails = self._aws.control.mails(account=self._tenant(cell).account)
        return sum(1 for mail in mails if mail.destinations == [f"{_request_id(cell)}@customer.example"])

    def _operate(self, *arguments: str) -> None:
        with worker.start(worker.operate, *arguments, env=worker.environment(self._aws, "SendFunction")) as process:
            assert process.next_result(DONE) == 0


def _front(cell: Cell, *, verify: bool = False) -> str:
    return f"{'verify ' if verify else ''}{cell[0]} {cell[1]}"


def _request_id(cell: Cell) -> str:
    return re.sub(r"[^A-Za-z]+", "-", f"{cell[0]} {cell[1]}")


def _endpoints(wire: StandaloneSes, cell: Cell, *, verify: bool = False) -> dict[str, str]:
    """Route the calls of the failing service through the cell's proxy."""
    return endpoints({PLACES[cell[0]].service: wire.urls[_front(cell, verify=verify)]})


def _shown(record: Delivery | None) -> str:
    if record is None:
        return NO_RECORD
    return f"{record.status}: {record.error.code}" if record.error and record.status is not Status.SENT else str(record.status)

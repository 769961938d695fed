"""Control the proxies from a test: inject faults, read what happened.

`ControlServer` runs in the process of the proxies, on its own port; `Control` is its client, for any thread or process:

    control.inject("hang", operation="SendRawEmail", access_key=tenant.access_key, times=1)
    …
    [request] = control.wait_for_requests(1, access_key=tenant.access_key, outcome="hung")
    control.clear_faults()
    [mail] = control.wait_for_mails(1, account=tenant.account)
    mail.raw, mail.destinations, mail.message_id
"""

import asyncio
import http.client
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tools.local_aws import wire
from tools.local_aws.faults import Fault
from tools.local_aws.feedback import EventFault
from tools.local_aws.proxy import FaultProxy, Listener, Wire
from tools.local_aws.ses import SesGate
from tools.local_aws.ses_events import RecipientOutcome
from tools.local_aws.wire import Request, Response

WAIT = 20.0  # longest wait_for_…, in seconds


class ControlServer:
    """Serve the control routes of one process's proxies."""

    def __init__(self, shared: Wire, proxies: dict[str, FaultProxy], ses: SesGate) -> None:
        self._wire = shared
        self._proxies = proxies
        self._ses = ses
        self._listener = Listener(self._converse)

    async def start(self, port: int = 0) -> int:
        return await self._listener.listen(port)

    async def stop(self) -> None:
        await self._listener.stop()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await wire.read_head(reader)
            await wire.read_body(request, reader, writer)
            response = await self._answer(request)
            writer.write(response.head + response.raw_body)
            await writer.drain()

    async def _answer(self, request: Request) -> Response:
        handler = getattr(self, f"_{request.method.lower()}_{request.path.strip('/')}", None)
        if handler is None:
            return _json({"error": "no such route"}, status=404)
        data: dict[str, Any] = json.loads(request.body) if request.body else dict(parse_qsl(urlsplit(request.target).query))
        try:
            return _json(await handler(**data))
        except (TypeError, ValueError, KeyError) as error:
            return _json({"error": str(error)}, status=400)
        except Exception as error:  # the client gets it as a 500
            logging.getLogger(__name__).exception("%s %s failed", request.method, request.path)
            return _json({"error": f"{type(error).__name__}: {error}"}, status=500)

    async def _post_faults(self, **rule: Any) -> Any:
        return self._wire.faults.add(Fault.from_json(rule)).to_json()

    async def _get_faults(self) -> Any:
        return [fault.to_json() for fault in self._wire.faults]

    async def _delete_faults(self, **wanted: str) -> Any:
        self._wire.faults.clear(**wanted)
        self._wire.release()

    async def _post_reset(self) -> Any:
        await self._delete_faults()
        self._ses.limits.clear()
        self._ses.feedback.clear()
        self._ses.relay = self._wire.mark = None
        # Each of them, even if another fails.
        failures = await asyncio.gather(*(proxy.set_listening("accept") for proxy in self._proxies.values()), return_exceptions=True)
        if failed := [failure for failure in failures if failure]:
            raise BaseExceptionGroup("services that still accept no connections", failed)

    async def _get_requests(self, at_least: str = "0", seconds: str = "0", **wanted: str) -> Any:
        def matching() -> list[Any]:
            return [entry.to_json() for entry in self._wire.log if _fits(entry, wanted)]

        return await self._when_enough(matching, int(at_least), float(seconds))

    async def _delete_requests(self) -> Any:
        self._wire.log.clear()

    async def _get_mails(self, at_least: str = "0", seconds: str = "0", **wanted: str) -> Any:
        def matching() -> list[Any]:
            return [mail.to_json() for mail in self._ses.ledger.shown(**wanted)]

        return await self._when_enough(matching, int(at_least), float(seconds))

    async def _delete_mails(self) -> Any:
        self._ses.ledger.forget()

    async def _post_eventfaults(self, **rule: Any) -> Any:
        return asdict(self._ses.feedback.add(EventFault.from_json(rule)))

    async def _get_eventfaults(self) -> Any:
        return [asdict(fault) for fault in self._ses.feedback.faults]

    async def _put_outcomes(self, address: str, outcome: str) -> Any:
        self._ses.feedback.outcomes[address.lower()] = RecipientOutcome(outcome)

    async def _get_events(self, at_least: str = "0", seconds: str = "0", **wanted: str) -> Any:
        def matching() -> list[Any]:
            return [event.to_json() for event in self._ses.feedback.published if _fits(event, wanted)]

        return await self._when_enough(matching, int(at_least), float(seconds))

    async def _put_limits(self, account: str, max_send_rate: float = 0, max_24_hour_send: float = 0) -> Any:
        self._ses.limit(account, max_send_rate, max_24_hour_send)

    async def _put_accounts(self, access_key: str, account: str) -> Any:
        self._wire.accounts.set(access_key, account)

    async def _put_mark(self, pattern: str = "") -> Any:
        self._wire.mark = re.compile(pattern.encode()) if pattern else None

    async def _put_relay(self, host: str = "", port: int = 0) -> Any:
        self._ses.relay = (host, port) if host else None

    async def _put_listening(self, service: str, mode: str) -> Any:
        await self._proxies[service].set_listening(mode)

    async def _when_enough(self, found: Any, at_least: int, seconds: float) -> Any:
        def enough() -> list[Any] | None:
            result: list[Any] = found()
            return result if len(result) >= at_least else None

        return await self._wire.changes.until(enough, seconds) or found()


@dataclass(frozen=True, slots=True)
class SentMail:
    """One mail that SES accepted."""

    number: int
    message_id: str
    time: float
    access_key: str
    account: str
    region: str
    source: str
    destinations: list[str]
    size: int
    configuration_set: str
    tags: dict[str, str]
    eml: Path

    @property
    def raw(self) -> bytes:
        return self.eml.read_bytes()


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request received by a proxy; `outcome` is open, answered, hung, reset, closed or truncated."""

    number: int
    time: float
    service: str
    method: str
    path: str
    operation: str
    access_key: str
    account: str
    size: int
    outcome: str
    status: int
    faults: list[int]
    marks: list[str]


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """One event of SES. It was put on a queue if it is `routed` and not `lost`; `account` is the real sender, not the envelope's."""

    number: int
    time: float
    account: str
    kind: str
    message_id: str
    routed: bool
    lost: bool
    faults: list[int]
    envelope: dict[str, Any]


class ControlError(Exception):
    """The control server rejected a command; the text has the reason."""


class Control:
    """Inject faults, set limits, and list requests and mails. Filters are fields of the results."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def inject(self, action: str, **rule: str | float) -> int:
        """Add a fault (the fields of `faults.Fault`); return its id."""
        answer = self._call("POST", "faults", body={"action": action, **rule})
        return int(answer["id"])

    def hits(self, fault: int) -> int:
        """Return how many requests a fault has affected."""
        return next((int(rule["hits"]) for rule in self._call("GET", "faults") if rule["id"] == fault), 0)

    def clear_faults(self, **wanted: str | int) -> None:
        """Remove faults, all or those with these fields, and end the hanging connections."""
        self._call("DELETE", "faults", query=wanted)

    def reset_all(self) -> None:
        """Remove every fault, outcome, limit and relay, reopen the listeners, and end the hanging connections."""
        self._call("POST", "reset")

    def requests(self, **wanted: str | float) -> list[SeenRequest]:
        return [SeenRequest(**entry) for entry in self._call("GET", "requests", query=wanted)]

    def wait_for_requests(self, at_least: int, *, seconds: float = WAIT, **wanted: str | float) -> list[SeenRequest]:
        """List the matching requests as soon as there are `at_least`, or those received before the timeout."""
        return self.requests(at_least=at_least, seconds=seconds, **wanted)

    def forget_requests(self) -> None:
        self._call("DELETE", "requests")

    def mails(self, **wanted: str | float) -> list[SentMail]:
        return [SentMail(**{**mail, "eml": Path(mail["eml"])}) for mail in self._call("GET", "mails", query=wanted)]

    def wait_for_mails(self, at_least: int, *, seconds: float = WAIT, **wanted: str | float) -> list[SentMail]:
        """List the accepted mails as soon as there are `at_least`, or those accepted before the timeout."""
        return self.mails(at_least=at_least, seconds=seconds, **wanted)

    def forget_mails(self) -> None:
        """Omit the mails so far from later lists; their files stay."""
        self._call("DELETE", "mails")

    def inject_event_fault(self, action: str, **rule: Any) -> int:
        """Add a fault of SES's events (the fields of `feedback.EventFault`); return its id."""
        return int(self._call("POST", "eventfaults", body={"action": action, **rule})["id"])

    def event_fault_hits(self, fault: int) -> int:
        """Return how many events a fault has affected."""
        return next((int(rule["hits"]) for rule in self._call("GET", "eventfaults") if rule["id"] == fault), 0)

    def set_outcome(self, address: str, outcome: str) -> None:
        """Set the outcome of mail to an address (`ses_events.RecipientOutcome`)."""
        self._call("PUT", "outcomes", body={"address": address, "outcome": outcome})

    def events(self, **wanted: str | float) -> list[PublishedEvent]:
        """List the events that SES has published."""
        return [PublishedEvent(**event) for event in self._call("GET", "events", query=wanted)]

    def wait_for_events(self, at_least: int, *, seconds: float = WAIT, **wanted: str | float) -> list[PublishedEvent]:
        """List the matching events as soon as there are `at_least`, or those published before the timeout."""
        return self.events(at_least=at_least, seconds=seconds, **wanted)

    def limit(self, account: str, *, max_send_rate: float = 0, max_24_hour_send: float = 0) -> None:
        """Set an account's sending limits in recipients, per second and per 24 hours; 0 is none."""
        self._call("PUT", "limits", body={"account": account, "max_send_rate": max_send_rate, "max_24_hour_send": max_24_hour_send})

    def set_account(self, access_key: str, account: str) -> None:
        """Set the account of an access key."""
        self._call("PUT", "accounts", body={"access_key": access_key, "account": account})

    def mark(self, pattern: str = "") -> None:
        """Record from now on the parts of each request's body that match a pattern, as the request's `marks`."""
        self._call("PUT", "mark", body={"pattern": pattern})

    def relay_to(self, host: str = "", port: int = 0) -> None:
        """Relay every accepted mail to an SMTP server too; without a host, to none."""
        self._call("PUT", "relay", body={"host": host, "port": port})

    def set_listening(self, service: str, mode: str) -> None:
        """Accept new connections (`accept`), refuse them (`refuse`), or let them time out (`ignore`); open ones are reset."""
        self._call("PUT", "listening", body={"service": service, "mode": mode})

    def _call(self, method: str, route: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=WAIT * 10)
        try:
            target = f"/{route}?{urlencode(query)}" if query else f"/{route}"
            connection.request(method, target, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ControlError(answer["error"])
        return answer


def _fits(entry: object, wanted: dict[str, str]) -> bool:
    return all(str(getattr(entry, name)) == value for name, value in wanted.items())


def _json(data: Any, status: int = 200) -> Response:
    return Response.make(status, json.dumps(data).encode(), "application/json")

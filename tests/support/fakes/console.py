"""Fakes of the console's sources: some tenants, their mail and its errors."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zlib import crc32

from mailer.domain.errors import CODES
from mailer.domain.producers import Producers
from mailer_ops.console.sources.answers import Answer, Trouble
from mailer_ops.console.sources.api import query_of
from mailer_ops.console.sources.dead_letters import StackDeadLetters
from mailer_ops.console.sources.health import OUTCOMES, Alarm, Counts, Queue, Window
from mailer_ops.console.sources.mails import AcceptedMail
from mailer_ops.console.sources.requests import Logged
from mailer_ops.console.web import Place, Sources
from mailer_ops.operations.dead_letters import DeadLetterDependencies
from mailer_ops.operations.request_log import parse_line
from mailer_ops.ports import DeadLetter
from support.fakes.ports import FakeClock, FakeMessagesTable, FakeParkedBodies, FakeSendQueue, FakeTelemetry

NOW = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)

type Json = dict[str, Any]


def written(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def error(code: str, message: str = "from SES") -> Json:
    return {"code": code, "message": message, "retryable": False, "hint": CODES[code].hint if code in CODES else code}


def provider(tenant_id: str, **changes: Any) -> Json:
    """Return a provider record as GET …/provider does."""
    return {
        "tenantId": tenant_id,
        "provider": "ses",
        "status": "active",
        "version": 3,
        "region": "eu-central-1",
        "fromAddress": f"billing@{tenant_id}.example",
        "fromName": f"{tenant_id.capitalize()} Billing",
        "credentials": {"type": "accessKey", "accessKeyId": "MPLE"},
        "configurationSet": f"mail-{tenant_id}",
        "maxSendRate": None,
        "sandbox": "false",
        "feedback": "proven",
        "lastFeedbackAt": written(NOW - timedelta(minutes=4)),
        "verifiedAt": written(NOW - timedelta(days=20)),
        "updatedAt": written(NOW - timedelta(days=20)),
        "updatedBy": "arn:aws:iam::111122223333:role/backend",
        "warnings": [],
        "candidate": None,
        "error": None,
        **changes,
    }


def record(tenant_id: str, request_id: str, status: str, ago: timedelta, **changes: Any) -> Json:
    """Return a status record as GET …/messages does."""
    at = NOW - ago
    sent = {"messageId": f"0100019{crc32(request_id.encode()):010}-7c1e", "sentAt": written(at + timedelta(seconds=1))}
    return {
        "tenantId": tenant_id,
        "requestId": request_id,
        "status": status,
        "provider": "ses",
        "messageId": None,
        "attempts": 1 if status in ("sent", "unknown") else 0,
        "recipients": 1,
        "error": None,
        "onUnknown": "hold",
        "feedback": None,
        "suppressed": 0,
        "createdAt": written(at),
        "updatedAt": written(at + timedelta(seconds=1)),
        "sentAt": None,
        **(sent if status == "sent" else {}),
        **changes,
    }


@dataclass(slots=True)
class FakeApi:
    """The REST API on dictionaries; `denied`: patterns of `METHOD path` that IAM denies; `absent`: those of later versions."""

    providers: dict[str, Json] = field(default_factory=dict)
    records: list[Json] = field(default_factory=list)
    recipients: dict[str, list[Json]] = field(default_factory=dict)
    suppressions: dict[str, list[Json]] = field(default_factory=dict)
    buckets: dict[str, list[Json]] = field(default_factory=dict)
    verdicts: dict[str, Json] = field(default_factory=dict)
    """Error of a tenant's verify."""
    denied: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    called: list[tuple[str, str, Any]] = field(default_factory=list)
    url: str = "https://abcdef1234.execute-api.eu-central-1.amazonaws.com/v1"
    region: str = "eu-central-1"

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer[Any]:
        self.called.append((method, path + query_of(query), body))
        route = f"{method} {path}"
        if any(re.search(pattern, route) for pattern in self.denied):
            return Answer(trouble=Trouble(kind="denied", text=f"Your credentials may not call {route}.", code="access_denied"))
        if any(re.search(pattern, route) for pattern in self.absent):
            return _missing()
        steps = [unquote(step) for step in urlsplit(path).path.split("/")[1:]]
        parameters = {name: value for name, value in query.items() if value not in (None, "")}
        for pattern, answer in self._routes():
            if found := re.fullmatch(pattern, f"{method} {'/'.join(step.replace('/', '%2F') for step in steps)}", re.DOTALL):
                return answer(*found.groups(), body=body, **parameters)
        return _missing()

    def _routes(self) -> list[tuple[str, Callable[..., Answer[Any]]]]:
        tenant, request = "([^/]+)", "([^/]+)"
        return [
            ("GET tenants", self._tenants),
            (f"GET tenants/{tenant}/provider", self._provider),
            (f"PUT tenants/{tenant}/provider", self._store),
            (f"POST tenants/{tenant}/provider/(verify|disable|enable)", self._change),
            (f"DELETE tenants/{tenant}/provider", self._remove),
            (f"GET tenants/{tenant}/provider/onboarding", self._onboarding),
            (f"GET tenants/{tenant}/statistics", self._statistics),
            (f"GET tenants/{tenant}/messages", self._messages),
            (f"POST tenants/{tenant}/messages", self._send),
            (f"POST tenants/{tenant}/messages/preview", self._preview),
            (f"GET tenants/{tenant}/messages/{request}", self._message),
            (f"GET tenants/{tenant}/messages/{request}/feedback", self._feedback),
            (f"POST tenants/{tenant}/messages/{request}/(cancel|resolve)", self._settle),
            (f"GET tenants/{tenant}/suppressions", self._list),
            (f"(GET|PUT|DELETE) tenants/{tenant}/suppressions/{request}", self._suppression),
        ]

    def _tenants(self, *, status: str = "", limit: int = 100, cursor: str = "0", **_: Any) -> Answer[Any]:
        fitting = [row for row in self.providers.values() if status in ("", row["status"])]
        if not cursor.isdecimal():
            return _missing()
        end = int(cursor) + limit
        return Answer({"tenants": fitting[int(cursor) : end], "cursor": str(end) if end < len(fitting) else None})

    def _provider(self, tenant_id: str, **_: Any) -> Answer[Any]:
        found = self.providers.get(tenant_id)
        return Answer({name: value for name, value in found.items() if name != "tenantId"}) if found else _missing()

    def _store(self, tenant_id: str, *, body: Json, **_: Any) -> Answer[Any]:
        config = body["config"]
        if "@" not in config.get("fromAddress", ""):
            return _refused("invalid_request", "the config is against the rules", [("config.fromAddress", "must be an address")])
        shown = {name: config.get(name) for name in ("region", "fromAddress", "fromName", "configurationSet", "maxSendRate")}
        credentials: Json = (
            {"type": "role", "roleArn": config["roleArn"], "externalId": "x"} if "roleArn" in config else {"type": "accessKey"}
        )
        credentials |= {"accessKeyId": config["accessKeyId"][-4:]} if "accessKeyId" in config else {}
        new = provider(tenant_id, status="unverified", verifiedAt=None, **shown, credentials=credentials)
        known = self.providers.get(tenant_id)
        self.providers[tenant_id] = {**known, "candidate": new} if known and known["status"] != "unverified" else new
        return self._provider(tenant_id)

    def _change(self, tenant_id: str, action: str, **_: Any) -> Answer[Any]:
        row = self.providers.get(tenant_id)
        if row is None:
            return _missing()
        if action == "verify" and tenant_id in self.verdicts:
            verdict = self.verdicts[tenant_id]
            row["error"] = verdict
            return _refused(verdict["code"], verdict["message"], hint=verdict["hint"])
        row |= {"status": "disabled" if action == "disable" else "active", "error": None}
        return Answer({"messageId": "0100-verify", "sandbox": "unknown", "warnings": ["It may be in sandbox mode."], **row})

    def _remove(self, tenant_id: str, **_: Any) -> Answer[Any]:
        return _missing() if self.providers.pop(tenant_id, None) is None else Answer(None)

    def _onboarding(self, tenant_id: str, **_: Any) -> Answer[Any]:
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*"}]}
        template = json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Description": f"Lets us send for {tenant_id}."}, indent=2)
        link = "https://eu-central-1.console.aws.amazon.com/cloudformation/home#/stacks/create/review?templateURL=…"
        external = {"externalId": "tm-6f1c2a9e4b", "iamPolicy": policy, "trustPolicy": policy}
        return Answer({**external, "cloudFormationTemplate": template, "quickCreateLink": link})

    def _statistics(self, tenant_id: str, **_: Any) -> Answer[Any]:
        return Answer({"buckets": self.buckets.get(tenant_id, [])})

    def _messages(self, tenant_id: str, *, status: str = "", limit: int = 50, cursor: str = "0", **_: Any) -> Answer[Any]:
        mine = [row for row in self.records if row["tenantId"] == tenant_id and status in ("", row["status"])]
        if not cursor.isdecimal():
            return _missing()
        end = int(cursor) + limit
        return Answer({"messages": mine[int(cursor) : end], "cursor": str(end) if end < len(mine) else None})

    def _send(self, tenant_id: str, *, body: Json, **_: Any) -> Answer[Any]:
        if tenant_id not in self.providers:
            return _refused("provider_not_configured", "the tenant has no mail provider")
        self.records.insert(0, record(tenant_id, body["requestId"], "queued", timedelta()))
        return Answer(self.records[0])

    def _preview(self, _: str, *, body: Json, **__: Any) -> Answer[Any]:
        message = body["message"]
        if not message.get("to"):
            return Answer({"mime": None, "truncated": False, "size": None, "problems": [{"path": "message.to", "problem": "is missing"}]})
        mime = mail_of(message).decode()
        return Answer({"mime": mime, "truncated": False, "size": len(mime), "problems": []})

    def _find(self, tenant_id: str, request_id: str) -> Json | None:
        return next((row for row in self.records if (row["tenantId"], row["requestId"]) == (tenant_id, request_id)), None)

    def _message(self, tenant_id: str, request_id: str, **_: Any) -> Answer[Any]:
        found = self._find(tenant_id, request_id)
        return Answer(found) if found else _missing()

    def _feedback(self, _: str, request_id: str, **__: Any) -> Answer[Any]:
        return Answer({"recipients": self.recipients.get(request_id, [])})

    def _settle(self, tenant_id: str, request_id: str, action: str, *, body: Any = None, **_: Any) -> Answer[Any]:
        found = self._find(tenant_id, request_id)
        if found is None:
            return _missing()
        if action == "cancel":
            found |= {"status": "cancelled", "cancelledBy": "arn:aws:iam::111122223333:user/ops", "error": None}
        else:
            resolution = {**body, "at": written(NOW), "principal": "arn:aws:iam::111122223333:user/ops"}
            found |= {
                "status": "sent" if body["outcome"] == "sent" else "queued",
                "resolution": resolution,
                "error": None,
                "sentAt": written(NOW),
            }
        return Answer(found)

    def _list(self, tenant_id: str, *, reason: str = "", **_: Any) -> Answer[Any]:
        mine = self.suppressions.get(tenant_id, [])
        return Answer({"suppressions": [entry for entry in mine if reason in ("", entry["reason"])], "cursor": None})

    def _suppression(self, method: str, tenant_id: str, email: str, *, body: Any = None, **_: Any) -> Answer[Any]:
        mine = self.suppressions.setdefault(tenant_id, [])
        found = next((entry for entry in mine if entry["email"] == email), None)
        if method == "PUT":
            self.suppressions[tenant_id] = [*mine, {"email": email, "reason": "manual", "at": written(NOW), **body}]
            return Answer(self.suppressions[tenant_id][-1])
        if found is None:
            return _missing()
        if method == "DELETE":
            mine.remove(found)
            command = f"aws sesv2 delete-suppressed-destination --email-address={email}"
            return Answer({"sesList": {"mayHold": True, "command": command}})
        return Answer(found)


def _missing() -> Answer[Any]:
    return Answer(trouble=Trouble(kind="missing", code="not_found", text="there is no such thing", hint=CODES["not_found"].hint))


def _refused(code: str, text: str, faults: Sequence[tuple[str, str]] = (), hint: str = "") -> Answer[Any]:
    return Answer(trouble=Trouble(kind="refused", code=code, text=text, hint=hint or CODES[code].hint, faults=faults))


def mail_of(message: Json) -> bytes:
    """Build a mail similar to the service's."""
    mail = EmailMessage()
    mail["From"] = "Acme Billing <billing@acme.example>"
    mail["To"] = ", ".join(box["email"] for box in message["to"])
    mail["Subject"] = message["subject"]
    mail.set_content(message.get("text", ""))
    if message.get("html"):
        mail.add_alternative(message["html"], subtype="html")
    for file in message.get("attachments", []):
        mail.add_attachment(b"content", maintype="application", subtype="octet-stream", filename=file["filename"])
    return mail.as_bytes().replace(b"\n", b"\r\n")


@dataclass(slots=True)
class FakeHealth:
    """Queues, alarms and counts as set, or a trouble if one is set."""

    shown: list[Queue] = field(default_factory=lambda: [Queue("Send queue", 0, 0, 0), Queue("Dead letters", 0, 0, 0)])
    on: list[Alarm] = field(default_factory=list)
    series: Mapping[str, Callable[[int], int]] = field(default_factory=dict)
    trouble: Trouble | None = None

    def queues(self) -> Answer[list[Queue]]:
        return Answer(trouble=self.trouble) if self.trouble else Answer(self.shown)

    def alarms(self) -> Answer[list[Alarm]]:
        return Answer(trouble=self.trouble) if self.trouble else Answer(self.on)

    def counts(self, window: Window) -> Answer[Counts]:
        if self.trouble:
            return Answer(trouble=self.trouble)
        none: Callable[[int], int] = lambda _: 0  # noqa: E731 - a default for `series`
        series = {name: [self.series.get(name, none)(step) for step in range(window.steps)] for name in OUTCOMES}
        return Answer(Counts(window, series, "CloudWatch"))


@dataclass(slots=True)
class FakeRequestLog:
    """Log lines in the format of the functions."""

    lines: list[str] = field(default_factory=list)
    trouble: Trouble | None = None

    def add(self, tenant_id: str, request_id: str, status: str, ago: timedelta, **more: Any) -> None:
        at = f"{NOW - ago:%Y-%m-%d %H:%M:%S},000+0000"
        line = {"message": "request recorded", "tenant_id": tenant_id, "request_id": request_id, "status": status, "timestamp": at, **more}
        self.lines.append(json.dumps(line))

    def read(self, since: datetime, *, until: datetime | None = None, request_id: str | None = None) -> Answer[Logged]:
        if self.trouble:
            return Answer(trouble=self.trouble)
        states = [(state, line) for line in self.lines if (state := parse_line(line))]
        fitting = [
            (state, line) for state, line in states if since <= state.at <= (until or NOW) and request_id in (None, state.request_id)
        ]
        fitting.sort(key=lambda pair: pair[0].at)
        return Answer(Logged([state for state, _ in fitting], [line for _, line in fitting], cut=False))


@dataclass(slots=True)
class FakeDeadLetterQueue:
    """A dead-letter queue as a list."""

    messages: list[DeadLetter] = field(default_factory=list)

    def receive_all(self) -> Iterator[DeadLetter]:
        yield from list(self.messages)

    def delete(self, dead_letter: DeadLetter) -> None:
        self.messages = [each for each in self.messages if each.handle != dead_letter.handle]

    def put_back(self, dead_letters: Any) -> None:
        pass


@dataclass(slots=True)
class FakeMails:
    """A local SES's ledger."""

    folder: Path
    accepted: list[AcceptedMail] = field(default_factory=list)

    def add(self, raw: bytes, *, message_id: str, tags: Mapping[str, str] | None = None, ago: timedelta = timedelta()) -> None:
        file = self.folder / f"{len(self.accepted) + 1}.eml"
        file.write_bytes(raw)
        attributes: Json = {
            "source": "billing@acme.example",
            "destinations": ("jo@example.com",),
            "size": len(raw),
            "tags": tags or {},
            "file": file,
        }
        self.accepted.insert(0, AcceptedMail(number=len(self.accepted) + 1, message_id=message_id, at=NOW - ago, **attributes))

    def newest(self) -> list[AcceptedMail]:
        return self.accepted


@dataclass(slots=True)
class Platform:
    """All sources; tests change them before they request a page."""

    mails: FakeMails | None = None
    api: FakeApi = field(default_factory=FakeApi)
    health: FakeHealth = field(default_factory=FakeHealth)
    log: FakeRequestLog = field(default_factory=FakeRequestLog)
    dead_letters: FakeDeadLetterQueue = field(default_factory=FakeDeadLetterQueue)
    messages: FakeMessagesTable = field(default_factory=FakeMessagesTable)
    runbook: str = "# Runbook\n\n## Dead letters\n\nCopies.\n\nDo: list them, then `redrive` or drop.\n"
    is_local: bool = True

    def sources(self) -> Sources:
        @contextmanager
        def deps() -> Iterator[DeadLetterDependencies]:
            yield DeadLetterDependencies(
                dead_letters=self.dead_letters,
                messages=self.messages,
                queue=FakeSendQueue(),
                parked=FakeParkedBodies(),
                telemetry=FakeTelemetry(),
                clock=FakeClock(),
                producers=Producers.parse(""),
            )

        identity = "arn:aws:iam::111122223333:user/ops"
        place = Place(stack="tenantmail", region="eu-central-1", account="111122223333", identity=identity, is_local=self.is_local)
        return Sources(
            place=place,
            api=self.api,
            health=self.health,
            requests=self.log,
            dead_letters=StackDeadLetters("tenantmail", deps),
            mails=self.mails,
            runbook=self.runbook,
            now=lambda: NOW,
        )

"""The operators' commands, for the AWS account of the SDK's credentials: `python -m mailer_ops.operate --help`.

dlq list | redrive | drop      the dead-letter queue, by reason and tenant
pause | resume                 stop and start SendFunction's event source
trouble [--hours N]            tenants whose mail does not go out: reason, and the hint that says who must do what
ask METHOD PATH [NAME=VALUE …] call the API, signed
erase request|tenant|address   delete the data of a request, a tenant or an address
console [--port N]             serve the console, on this machine alone
replay --since MOMENT [FILE]   write lost outcomes into a restored messages table
mark                           mark tenants that have suppressions, after rows of the providers table were restored
"""

import signal

if __name__ == "__main__":  # during the import of the SDK, Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session

from mailer import wiring
from mailer.domain.addresses import AddressError
from mailer.domain.errors import DependencyError
from mailer.domain.message import REQUEST_ID, TENANT_ID
from mailer_client import ApiError
from mailer_client.connection import Connection
from mailer_ops.adapters.address_erasure import DynamoAddressEraser
from mailer_ops.adapters.erasure import AwsEraser, Tables
from mailer_ops.adapters.outcome_restore import DynamoOutcomeRestore
from mailer_ops.adapters.suppression_marks import DynamoUnmarkedTenants
from mailer_ops.operations import dead_letters, erasure
from mailer_ops.operations.dead_letters import Selector
from mailer_ops.operations.erasure import ErasureDependencies, StillOpenError
from mailer_ops.operations.replay import MARGIN, ReplayDependencies, replay
from mailer_ops.operations.request_log import STATE_MESSAGES
from mailer_ops.operations.suppression_marks import mark_again
from mailer_ops.operations.trouble import find_trouble
from mailer_ops.stack import (
    CommandError,
    client,
    dead_letter_deps,
    explain,
    function_log,
    open_dead_letters,
    open_telemetry,
    resources,
    use_stack,
)

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells use it."""

UNREAD = 141
"""The exit code if the reader of the output has ended, as in `… | head -1`; as shells use it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 1 if some of the selected work was not done, 2 if none could be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        use_stack(arguments.stack)
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered is for nobody
        return UNREAD
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; run it again to go on\n")
        return INTERRUPTED
    except (CommandError, StillOpenError) as refusal:
        return _fail(str(refusal))
    except (BotoCoreError, ClientError, DependencyError) as failure:
        return _fail(explain(failure, arguments.stack))
    return code


def _fail(sentence: str) -> int:
    sys.stderr.write(_filled(sentence) + "\n")
    return 2


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Parser(argparse.ArgumentParser):
    """Prints errors as wide as the terminal."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, _filled(f"{self.prog}: error: {message}") + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mailer_ops.operate", description="What operators do by hand.")
    parser.add_argument("--stack", default="tenantmail", help="the CloudFormation stack (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_dlq(commands)
    for name, is_on, text in (
        ("pause", False, "stop sending: SendFunction takes no requests off the queue"),
        ("resume", True, "resume sending"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=_switch, is_on=is_on)
    trouble = commands.add_parser("trouble", help="count what does not go out, by tenant and code, from the functions' logs")
    trouble.add_argument("--hours", type=_hours, default=1.0, help="how far to look back (default: %(default)s)")
    trouble.set_defaults(run=_trouble)
    _add_ask(commands)
    _add_erase(commands)
    console = commands.add_parser("console", help="serve the console on this machine")
    console.add_argument("--port", type=_port, default=4567, help="of 127.0.0.1 (default: %(default)s)")
    console.add_argument("--no-browser", action="store_true", help="do not open it")
    console.set_defaults(run=_console)
    again = commands.add_parser("replay", help="write lost outcomes into a restored messages table (docs/deploy.md)")
    again.add_argument("--since", type=_moment, required=True, help="the moment that it was restored to, such as 2026-11-24T08:00:00Z")
    again.add_argument(
        "file", nargs="?", help="lines of the functions' logs, one JSON object each; - for standard input; default: CloudWatch"
    )
    again.set_defaults(run=_replay)
    commands.add_parser("mark", help="mark tenants with suppressions in restored rows of the providers table").set_defaults(run=_mark)
    return parser


def _add_dlq(commands: Any) -> None:
    letters = commands.add_parser("dlq", help="work through the dead-letter queue").add_subparsers(required=True)
    for name, run, text in (
        ("list", _list, "count the dead letters, by tenant and reason"),
        ("redrive", _redrive, "put selected requests on the queue again; never one that has ended"),
        ("drop", _drop, "give up selected requests: they end as failed: dropped"),
    ):
        command = letters.add_parser(name, help=text)
        command.add_argument("--tenant", help="only this tenant's")
        command.add_argument("--request", help="only this requestId")
        command.add_argument("--reason", help="only those with this reason")
        command.set_defaults(run=run)


def _add_ask(commands: Any) -> None:
    ask = commands.add_parser("ask", help="call the API (TENANTMAIL_API, or the stack's) as yourself")
    ask.add_argument("method", choices=["GET", "POST", "PUT", "DELETE"])
    ask.add_argument("path", type=_path, help="such as /tenants/acme/messages?status=unknown")
    ask.add_argument("fields", nargs="*", metavar="NAME=VALUE", type=_field, help="of the JSON body; their values are text")
    ask.add_argument("--body", metavar="FILE", help="the JSON body; - for standard input")
    ask.set_defaults(run=_ask)


def _add_erase(commands: Any) -> None:
    kinds = commands.add_parser("erase", help="delete the data of a request, a tenant or an address").add_subparsers(required=True)
    request = kinds.add_parser("request", help="its record, parked bodies and dead letters")
    request.add_argument("tenant", type=_tenant_id)
    request.add_argument("request", type=_request_id)
    request.add_argument("--upload", action="append", default=[], type=_upload, metavar="KEY", help="and this upload; may be repeated")
    request.set_defaults(run=_erase_request)
    tenant = kinds.add_parser("tenant", help="all its requests and uploads, and its provider")
    tenant.add_argument("tenant", type=_tenant_id)
    tenant.set_defaults(run=_erase_tenant)
    address = kinds.add_parser("address", help="its suppressions and SES's reports of mail to it, of all tenants")
    address.add_argument("address")
    address.set_defaults(run=_erase_address)
    for command in (request, tenant):
        command.add_argument("--cancel", action="store_true", help="cancel first what is open")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC) - MARGIN + MARGIN
    except (ValueError, OverflowError):  # also the first minutes of the year 1, which have none before them
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-24T08:00:00Z") from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to {_MAX_PORT}")
    return int(text)


_MAX_PORT = 65_535


_MOST_HOURS = 24 * 3653
"""Ten years, the longest LogRetentionDays."""


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours, more than 0 and at most {_MOST_HOURS}")
    return hours


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a path such as /tenants/acme/provider")
    return text


def _tenant_id(text: str) -> str:
    if not re.fullmatch(TENANT_ID, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a tenantId")
    return text


def _request_id(text: str) -> str:
    if not re.fullmatch(REQUEST_ID, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a requestId")
    return text


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _upload(text: str) -> str:
    key = text.rpartition("/")[2]
    if not re.fullmatch("[0-9a-f]{32}", key):
        raise argparse.ArgumentTypeError(f"{text!r} is not the key that POST …/attachments gave")
    return key


# ── the dead-letter queue ───────────────────────────────────────────────────────────────────────────────────────────────


def _selector(arguments: argparse.Namespace) -> Selector:
    wanted = {"tenant_id": arguments.tenant, "request_id": arguments.request, "reason": arguments.reason}
    return lambda summary: all(value in (None, getattr(summary, name)) for name, value in wanted.items())


def _list(arguments: argparse.Namespace) -> int:
    selected = _selector(arguments)
    with dead_letter_deps(arguments.stack) as deps:
        summaries = [summary for summary in dead_letters.list_dead_letters(deps) if selected(summary)]
    if arguments.tenant or arguments.request or arguments.reason:
        for summary in summaries:
            _print(summary.tenant_id, summary.request_id, summary.reason, text=summary.detail)
    else:
        counts = Counter((summary.tenant_id, summary.reason) for summary in summaries)
        for (tenant_id, reason), count in sorted(counts.items()):
            _print(str(count), tenant_id, reason)
    _print(f"{len(summaries)} on the dead-letter queue")
    return 0


def _redrive(arguments: argparse.Namespace) -> int:
    with dead_letter_deps(arguments.stack) as deps:
        return _report(dead_letters.redrive(deps, _selector(arguments)), dead_letters.DeadLetterResult.REDRIVEN)


def _drop(arguments: argparse.Namespace) -> int:
    if not (arguments.tenant or arguments.request or arguments.reason):
        raise CommandError("Name what to drop: --tenant, --request or --reason.")
    with dead_letter_deps(arguments.stack) as deps:
        return _report(dead_letters.drop(deps, _selector(arguments)), dead_letters.DeadLetterResult.DROPPED)


def _report(done: dead_letters.Results, wanted: dead_letters.DeadLetterResult) -> int:
    outcomes: Counter[dead_letters.DeadLetterResult] = Counter()
    for summary, result in done:
        outcomes[result] += 1
        _print(summary.tenant_id, summary.request_id, text=result)
    _print(", ".join(f"{count} {result}" for result, count in outcomes.items()) or "nothing was chosen")
    return 0 if set(outcomes) <= {wanted, dead_letters.DeadLetterResult.RECORDED} else 1


# ── the event source ────────────────────────────────────────────────────────────────────────────────────────────────────


def _switch(arguments: argparse.Namespace) -> int:
    client("lambda").update_event_source_mapping(UUID=_event_source()["UUID"], Enabled=arguments.is_on)
    _print("resumed: SendFunction takes requests off the queue" if arguments.is_on else "paused: requests wait on the queue, up to 14 days")
    return 0


def _event_source() -> Any:
    queue = os.environ["SEND_QUEUE_URL"].rpartition("/")[2]
    pages = client("lambda").get_paginator("list_event_source_mappings").paginate()
    found = [m for page in pages for m in page["EventSourceMappings"] if m.get("EventSourceArn", "").endswith(f":{queue}")]
    if len(found) != 1:
        raise CommandError(f"The queue {queue} has {len(found)} event sources, not one: deploy the stack again.")
    return found[0]


# ── who is in trouble, and the API ──────────────────────────────────────────────────────────────────────────────────────


def _trouble(arguments: argparse.Namespace) -> int:
    since = wiring.clock().now() - timedelta(hours=arguments.hours)
    found = find_trouble(function_log(arguments.stack).lines(STATE_MESSAGES, since))
    for trouble in found:
        _print(str(trouble.requests), trouble.tenant_id, trouble.status, trouble.code, text=trouble.hint)
    _print(f"{len(found)} kinds of trouble in {arguments.hours:g} h")
    return 0


def _ask(arguments: argparse.Namespace) -> int:
    session = boto3.Session()
    api = Connection(
        url=os.environ["API_URL"].rstrip("/"),
        region=session.region_name,
        credentials=session.get_credentials(),
        transport=URLLib3Session(timeout=30),
    )
    try:
        answer = api.call(arguments.method, arguments.path, _body(arguments))
    except ApiError as refusal:
        hint = refusal.problem.hint if refusal.problem else ""
        _print(text=str(refusal))
        _print(text=_LOCKED_OUT if refusal.status == HTTPStatus.FORBIDDEN else hint)
        return 1
    _print(json.dumps(answer, indent=2, ensure_ascii=False))
    return 0


_LOCKED_OUT = "There is no such path, or these credentials lack a right, execute-api:Invoke: docs/deploy.md has the policy."


def _body(arguments: argparse.Namespace) -> Any:
    if arguments.body is None:
        return dict(arguments.fields) or None
    if arguments.fields:
        raise CommandError("Give the body as --body or as NAME=VALUE, not both.")
    try:
        return json.loads(_read(arguments.body))
    except ValueError as fault:
        raise CommandError(f"{arguments.body} is not JSON: {fault}.") from None


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as fault:
        raise CommandError(f"{name} cannot be read: {fault.strerror}.") from None
    except ValueError:
        raise CommandError(f"{name} cannot be read: it is not text in UTF-8.") from None


# ── erasure ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _erasure(stack: str) -> Iterator[ErasureDependencies]:
    settings, made = os.environ, resources(stack)
    eraser = AwsEraser(
        wiring.dynamodb(),
        wiring.s3(),
        Tables(
            messages=settings["MESSAGES_TABLE"],
            providers=settings["PROVIDERS_TABLE"],
            pacing=made["PacingTable"],
            feedback=made["FeedbackTable"],
            statistics=made["StatisticsTable"],
        ),
        bucket=settings["ATTACHMENTS_BUCKET"],
    )
    with open_telemetry(stack) as telemetry, open_dead_letters() as letters:
        yield ErasureDependencies(
            eraser=eraser,
            addresses=DynamoAddressEraser(
                wiring.dynamodb(),
                suppressions=settings["SUPPRESSIONS_TABLE"],
                feedback=made["FeedbackTable"],
                providers=settings["PROVIDERS_TABLE"],
            ),
            providers=wiring.providers_table(),
            messages=wiring.messages_table(),
            dead_letters=letters,
            parked=wiring.parked_bodies(),
            telemetry=telemetry,
            clock=wiring.clock(),
        )


def _erase_request(arguments: argparse.Namespace) -> int:
    with _erasure(arguments.stack) as deps:
        erased = erasure.erase_request(arguments.tenant, arguments.request, deps, cancel=arguments.cancel, uploads=arguments.upload)
    return _report_erased(erased)


def _erase_tenant(arguments: argparse.Namespace) -> int:
    with _erasure(arguments.stack) as deps:
        erased = erasure.erase_tenant(arguments.tenant, deps, cancel=arguments.cancel)
    _report_erased(erased)
    _print(text="The version counter of the provider's row stays: no version is assigned twice.")
    return 0


def _erase_address(arguments: argparse.Namespace) -> int:
    try:
        with _erasure(arguments.stack) as deps:
            erased = erasure.erase_address(arguments.address, deps)
    except AddressError as error:
        raise CommandError(f"The address {error}.") from None
    _report_erased(erased)
    _print(text="Mail that waits may have it too; erase those requests by their ids. Nothing keeps mail from the address now.")
    return 0


def _report_erased(erased: Counter[str]) -> int:
    for what, count in (+erased).items():
        _print(str(count), what)
    if not +erased:
        _print("nothing was there")
    _print(text=_STAYS)
    return 0


_STAYS = (
    "Elsewhere stay: ids, statuses and SES message ids in the logs, for LogRetentionDays; all rows as they were in the tables'"
    " point-in-time backups, for 35 days; what SES and the tenant's own account keep. docs/deploy.md tells more."
)


# ── after a restore ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _replay(arguments: argparse.Namespace) -> int:
    if _event_source().get("State") not in ("Disabled", "Disabling"):
        raise CommandError("SendFunction is taking requests off the queue: `make pause` first, as docs/deploy.md says.")
    deps = ReplayDependencies(
        outcomes=DynamoOutcomeRestore(wiring.dynamodb(), os.environ["MESSAGES_TABLE"]),
        messages=wiring.messages_table(),
        parked=wiring.parked_bodies(),
        bodies=wiring.parked_bodies(),
        clock=wiring.clock(),
    )
    since = arguments.since
    lines = _read(arguments.file).splitlines() if arguments.file else function_log(arguments.stack).lines(STATE_MESSAGES, since - MARGIN)
    done = replay(lines, deps, since=since)
    for what, count in sorted(done.items()):
        _print(str(count), what)
    return 1 if done.keys() & {"unreadable", "changed meanwhile"} else 0


def _mark(_: argparse.Namespace) -> int:
    unmarked = DynamoUnmarkedTenants(
        wiring.dynamodb(), providers=os.environ["PROVIDERS_TABLE"], suppressions=os.environ["SUPPRESSIONS_TABLE"]
    )
    marked = mark_again(unmarked, wiring.providers_table())
    for tenant_id in marked:
        _print(tenant_id)
    _print(f"{len(marked)} tenants marked, whose suppressions were not looked for")
    return 0


# ── the console ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _console(arguments: argparse.Namespace) -> int:
    from mailer_ops.console.server import serve  # noqa: PLC0415 - no other command needs a web server

    serve(arguments.stack, port=arguments.port, opens_browser=not arguments.no_browser)
    return 0


# ── output ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _print(*columns: str, text: str = "") -> None:
    """Print a row: its columns unbroken, so that ids can be copied, and below them a text that is wrapped to the terminal."""
    if columns:
        sys.stdout.write("  ".join(columns) + "\n")
    if text:
        indent = "    " if columns else ""
        sys.stdout.write(_filled(text, indent) + "\n")


def _filled(text: str, indent: str = "") -> str:
    """Wrap a text to the terminal, its words unbroken."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())

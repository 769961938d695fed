"""Compare the composer with Python's `EmailMessage` and with nodemailer: messages per second and peak memory.

Each contender composes the same messages from the same JSON, in turns of a quarter of a second; figures are medians of seven turns.
nodemailer is included if Node is installed.
"""

import base64
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from email.message import EmailMessage as PlainMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from pathlib import Path
from typing import Any

from mailer.domain.message import EmailMessage
from mailer.domain.mime import compose
from unit.mime.samples import DATE, SENDER, message

TURNS = 7
SECONDS = 0.25
HERE = Path(__file__).parent
PACKAGES = HERE.parents[2] / "prove" / "mime"

SIZES = {"small": 0, "100 KB": 100_000, "5 MB": 5_000_000}
GOALS = {"small": 8.0, "100 KB": 15.0, "5 MB": 8.0}  # times as fast as the standard library
MEMORY_GOAL = 3.0  # times the message


def fields(size: int) -> dict[str, Any]:
    """Return the fields of a typical invoice mail, with a file of `size` bytes."""
    made: dict[str, Any] = {
        "to": [{"email": "jo@example.com", "name": "Jo Ünger"}],
        "subject": "Ihre Rechnung für März",
        "text": "Guten Tag,\n\nanbei finden Sie Ihre Rechnung für März.\n\nMit freundlichen Grüßen\n" * 5,
        "html": '<p>Guten Tag,</p>\n<p>anbei finden Sie Ihre <a href="https://acme.example/i?id=42">Rechnung</a> für März.</p>\n' * 5,
    }
    if size:
        made["attachments"] = [{"filename": "Rechnung.pdf", "content": base64.b64encode(os.urandom(size)).decode()}]
    return made


def ours(content: EmailMessage) -> int:
    return len(compose(content, SENDER, date=DATE).mime)


def standard_library(content: EmailMessage) -> int:
    """Compose with the standard library, in the usual way."""
    mail = PlainMessage(policy=SMTP)
    mail["From"] = formataddr((SENDER.name, SENDER.email))
    mail["To"] = ", ".join(formataddr((box.name or "", box.email)) for box in content.to)
    mail["Subject"] = content.subject
    mail["Date"] = format_datetime(DATE)
    mail.set_content(content.text)
    mail.add_alternative(content.html, subtype="html")
    for file in content.attachments:
        octets = base64.b64decode(file.content or "")
        mail.add_attachment(octets, maintype="application", subtype="pdf", filename=file.filename)
    return len(mail.as_bytes())


def rate(contender: Callable[[EmailMessage], int], content: EmailMessage) -> float:
    """Return messages per second over one turn."""
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < SECONDS or not count:
        contender(content)
        count += 1
    return count / elapsed


def memory(contender: Callable[[EmailMessage], int], content: EmailMessage) -> float:
    """Return the peak of what composing allocates, as a multiple of the message; earlier allocations are not counted."""
    tracemalloc.start()
    size = contender(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / size


def nodemailer(cases: Path, name: str) -> float | None:
    """Return messages per second over one turn of nodemailer; None without Node."""
    if shutil.which("node") is None:
        return None
    command = ["node", str(HERE / "nodemailer.mjs"), str(cases), name, str(SECONDS)]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answer["rate"]


def main() -> None:
    if shutil.which("npm") and not (PACKAGES / "node_modules").exists():
        subprocess.run(["npm", "ci"], cwd=PACKAGES, check=True, capture_output=True)
    made = {name: fields(size) for name, size in SIZES.items()}
    with tempfile.TemporaryDirectory() as folder:
        cases = Path(folder) / "cases.json"
        cases.write_text(json.dumps({name: {"message": one} for name, one in made.items()}), encoding="utf-8")
        for name, one in made.items():
            compare(name, message(**one), cases)
    for contender in (ours, standard_library):
        goal = f" (goal: at most {MEMORY_GOAL:.0f})" if contender is ours else ""
        print(f"peak memory at 5 MB, {contender.__name__}: {memory(contender, message(**made['5 MB'])):.1f} × the message{goal}")


def compare(name: str, content: EmailMessage, cases: Path) -> None:
    turns = [(rate(ours, content), rate(standard_library, content), nodemailer(cases, name)) for _ in range(TURNS)]
    mine, python = statistics.median(turn[0] for turn in turns), statistics.median(turn[1] for turn in turns)
    node = [(mine_now, node_now) for mine_now, _, node_now in turns if node_now]
    against = statistics.median(mine_now / python_now for mine_now, python_now, _ in turns)
    print(f"{name:>6}: ours {mine:.0f}/s, EmailMessage {python:.0f}/s: {against:.1f} × as fast (goal: at least {GOALS[name]:.0f})", end="")
    if node:
        against_node = statistics.median(mine_now / node_now for mine_now, node_now in node)
        print(f"; nodemailer {statistics.median(node_now for _, node_now in node):.0f}/s: {against_node:.1f} × (goal: at least 1)", end="")
    print()


if __name__ == "__main__":
    main()

"""Compose mails from a folder of JSON files, for inspection: `python -m mailer_ops.render IN OUT`.

Each NAME.json in IN is `{"fromAddress", "fromName", "message"}`. OUT gets NAME.eml and NAME.envelope.json, or NAME.rejected.
"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from mailer.domain.addresses import ascii_address
from mailer.domain.errors import RequestError
from mailer.domain.message import Address, DisplayName, EmailMessage
from mailer.domain.mime import Mail, Sender, compose
from mailer.domain.wire import WireModel, read


class Order(WireModel):
    """One mail to compose, with its sender."""

    from_address: Address
    from_name: DisplayName = ""
    message: EmailMessage


def render(source: Path, target: Path) -> bool:
    """Compose one file into the folder `target`; return whether it could be composed."""
    for suffix in (".eml", ".envelope.json", ".rejected"):
        (target / f"{source.stem}{suffix}").unlink(missing_ok=True)
    try:
        mail = _composed(source.read_bytes())
    except RequestError as error:
        _write_json(target / f"{source.stem}.rejected", _refusal(error))
        return False
    (target / f"{source.stem}.eml").write_bytes(mail.mime)
    _write_json(target / f"{source.stem}.envelope.json", {"mailFrom": mail.mail_from, "rcptTo": mail.recipients})
    return True


def main(arguments: Sequence[str]) -> int:
    """Compose every file of a folder; return the exit code: 0 whether mails were refused or not, 2 if the folders cannot be used."""
    if len(arguments) != 2 or not all(arguments):  # noqa: PLR2004 - IN and OUT
        sys.stderr.write("usage: python -m mailer_ops.render IN OUT\n")
        return 2
    source, target = map(Path, arguments)
    try:
        files = sorted(file for file in source.iterdir() if file.suffix == ".json")
        target.mkdir(parents=True, exist_ok=True)
        composed = [render(file, target) for file in files]
    except OSError as fault:
        sys.stderr.write(f"{fault.filename}: {fault.strerror}\n")
        return 2
    sys.stdout.write(f"{sum(composed)} composed, {len(composed) - sum(composed)} rejected\n")
    return 0


def _composed(body: bytes) -> Mail:
    order = read(Order, body)
    sender = Sender(order.from_address, order.from_name)
    domain = ascii_address(sender.email).rpartition("@")[2]
    return compose(order.message, sender, date=datetime.now(UTC), message_id=f"<{uuid4()}@{domain}>")


def _refusal(error: RequestError) -> dict[str, object]:
    return {
        "code": error.code,
        "detail": str(error),
        "errors": [{"path": problem.path, "problem": problem.problem} for problem in error.problems],
    }


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

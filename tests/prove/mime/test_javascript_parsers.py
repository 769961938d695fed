"""npm's mailparser and postal-mime parse our mails correctly; needs Node 20 or later."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.domain.header_text import text_fault
from mailer.domain.message import EmailMessage
from mailer.domain.mime import compose
from unit.mime.samples import DATE, SENDER, b64, message, with_line_ends
from unit.mime.test_round_trips import HEADER_TEXT, TEXT

HERE = Path(__file__).parent
Read = Callable[[bytes], dict[str, Any]]


@pytest.fixture(scope="session")
def read() -> Iterator[Read]:
    """Start the parsers; yield a function that returns each one's result for a mail."""
    subprocess.run(["npm", "ci"], cwd=HERE, check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen(["node", "parse.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdin
        assert node.stdout
        into, out = node.stdin, node.stdout

        def ask(mime: bytes) -> dict[str, Any]:
            into.write(base64.b64encode(mime) + b"\n")
            into.flush()
            found: dict[str, Any] = json.loads(out.readline())
            return found

        yield ask
        into.close()


# Both parsers drop a byte order mark at the start of text, wherever it was split, and blanks at the ends of header text; they treat a lone
# CR as a line end, and add line ends to bodies. The examples contain none of these.
PLAIN_HEADER_TEXT = HEADER_TEXT.map(lambda text: " ".join(text.replace("\ufeff", "").split())).filter(lambda text: text_fault(text) is None)
PLAIN_TEXT = TEXT.map(lambda text: "-" + text.replace("\ufeff", "").replace("\0", "").replace("\r", "") + "-")


@st.composite
def messages(draw: st.DrawFn) -> EmailMessage:
    """Return a message with every possible part."""
    # postal-mime decodes encoded-words in a file name that RFC 2231 has encoded.
    name = PLAIN_HEADER_TEXT.map(lambda text: f"a{text.replace('?', '')}.bin")
    file = st.fixed_dictionaries({"filename": name, "content": st.binary(max_size=300).map(b64)})
    return message(
        to=[
            {"email": f"jo{at}@example.com", "name": name}
            for at, name in enumerate(draw(st.lists(PLAIN_HEADER_TEXT, min_size=1, max_size=4)))
        ],
        cc=[{"email": "cc@example.com"}],
        bcc=[{"email": "hidden@example.com"}],
        subject=draw(PLAIN_HEADER_TEXT),
        text=draw(PLAIN_TEXT),
        html="<p>" + draw(PLAIN_TEXT),
        attachments=[*draw(st.lists(file, max_size=3)), {"filename": "logo.png", "contentId": "logo", "content": b64(b"PNG")}],
    )


def lines(text: str) -> str:
    """Normalize the line ends of a text, and remove those at its end."""
    return with_line_ends(text).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


def files(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    return sorted((file["filename"], file["content"]) for file in found)


@settings(max_examples=2_000)
@given(messages())
def test_both_parsers_return_the_message(read: Read, original: EmailMessage) -> None:
    """Subject, names, recipients, bodies and files are the message's, and there is nothing else."""
    found = read(compose(original, SENDER, date=DATE).mime)
    for parser in ("mailparser", "postalMime"):
        mail = found[parser]
        assert mail["subject"] == original.subject, parser
        assert mail["from"] == [{"name": "Acme", "address": "no-reply@acme.example"}], parser
        assert mail["to"] == [{"name": box.name, "address": box.email} for box in original.to], parser
        assert mail["cc"] == [{"name": "", "address": "cc@example.com"}], parser
        assert mail["bcc"] == [], parser
        assert mail["names"] == ["from", "to", "cc", "subject", "date", "mime-version", "content-type"], parser
        assert lines(mail["text"]) == lines(original.text or ""), parser
        assert lines(mail["html"]) == lines(original.html or ""), parser
        assert files(mail["attachments"]) == sorted((one.filename, one.content or "") for one in original.attachments), parser

"""Write header fields: folded at 76, encoded where needed and only where allowed (RFC 5322, 2047, 2231).

Every function returns whole fields as text, lines joined by CRLF, without the last CRLF.
"""

import binascii
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from mailer.domain.header_text import MAX_LINE, is_structured
from mailer.domain.message import Mailbox

LINE = 76  # RFC 5322 asks for 78; 76 is RFC 2047's limit for a line that holds an encoded-word
WORD = 75  # of one encoded-word, RFC 2047 §2
SHORTEST_WORD = len("=?utf-8?q?=F0=9F=92=8C?=")  # that has room for any character
PARAMETER = 64  # of one parameter: fits behind a field's name or on a line of its own, with its semicolon

_PRINTABLE = re.compile(r"[!-~]+(?: [!-~]+)*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
# What every reader takes in a quoted parameter: no quote, no backslash, no separator, no percent sign.
_SAFE_PARAMETER = re.compile(r"[A-Za-z0-9!#$&'()+,.=@\[\]^_`{}~-]+(?: [A-Za-z0-9!#$&'()+,.=@\[\]^_`{}~-]+)*")

# RFC 2047 §5 (3): what may stand for itself in a Q-encoded word anywhere, even in a phrase.
_Q_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ "
_Q = [chr(octet) if octet in _Q_SAFE else f"={octet:02X}" for octet in range(256)]
_Q[0x20] = "_"
_CONTINUATION = range(0x80, 0xC0)  # octets of UTF-8 that do not begin a character


def unstructured(name: str, text: str) -> str:
    """Write a field of free text; a structured one is written as it is."""
    if not text:
        return f"{name}:"
    if is_structured(name):
        return folded(name, text.split())
    if _reads_plain(text):
        words = text.split(" ")
        if len(f"{name}: {words[0]}") <= LINE and max(map(len, words)) < LINE:
            return folded(name, words)
    room = LINE - len(f"{name}: ")
    return folded(name, encoded_words(text, room if room >= SHORTEST_WORD else WORD))


def mailboxes(name: str, addresses: Iterable[Mailbox]) -> str:
    """Write a field of addresses with their names."""
    room = LINE - len(f"{name}: ")  # so that the first line is never empty
    tokens: list[str] = []
    for mailbox in addresses:
        tokens += [*phrase(mailbox.name, room), f"<{mailbox.address}>,"] if mailbox.name else [f"{mailbox.address},"]
    tokens[-1] = tokens[-1][:-1]
    return folded(name, tokens)


def phrase(name: str, room: int) -> list[str]:
    """Write a display name in words of at most `room` characters: as it is, quoted, or encoded; never folded inside its quotes."""
    if len(name) <= room and _reads_plain(name):
        if _ATOMS.fullmatch(name):
            return [name]
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if len(quoted) <= room:
            return [quoted]
    return encoded_words(name, room, room)


def parameterised(name: str, value: str, parameters: Sequence[str]) -> str:
    """Write a MIME field such as Content-Type: its value, then its parameters as `parameter` gives them."""
    words = [value, *parameters]
    return folded(name, [*(f"{word};" for word in words[:-1]), words[-1]])


def parameter(attribute: str, text: str) -> list[str]:
    """Write one parameter: quoted where that is safe with every reader, else by RFC 2231, in pieces where it is long."""
    if is_plain_parameter(text):
        return [f'{attribute}="{text}"']
    encoded = [quote(character, safe="") for character in text]
    if sum(map(len, encoded)) <= PARAMETER - len(f"{attribute}*=utf-8''"):
        return [f"{attribute}*=utf-8''{''.join(encoded)}"]
    first, *rest = _packed(encoded, PARAMETER - len(f"{attribute}*0*=utf-8''"), PARAMETER - len(f"{attribute}*999*="))
    return [f"{attribute}*{at}*={piece}" for at, piece in enumerate([f"utf-8''{first}", *rest])]


def is_plain_parameter(text: str) -> bool:
    """Return whether every reader understands this text in a quoted string."""
    return len(text) <= PARAMETER - 4 and "=?" not in text and _SAFE_PARAMETER.fullmatch(text) is not None


def folded(name: str, words: Sequence[str]) -> str:
    """Fold words into lines of 76 characters; a longer word gets its own line.

    The first word stays on the line of the name if it fits: many readers take a fold after the colon for a blank.
    """
    first, *rest = words
    limit = LINE if first.startswith("=?") else MAX_LINE  # RFC 2047 §2 lets no line with an encoded-word be longer
    lines = [f"{name}:", f" {first}"] if len(f"{name}: {first}") > limit else [f"{name}: {first}"]
    for word in rest:
        if len(lines[-1]) + 1 + len(word) <= LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(f" {word}")
    return "\r\n".join(lines)


def encoded_words(text: str, first: int, rest: int = WORD) -> list[str]:
    """Write text as UTF-8 encoded-words of whole characters, Q or B, whichever is shorter; `first` and `rest` limit their lengths."""
    octets = text.encode()
    escaped = len(octets.translate(None, _Q_SAFE))
    overhead = len("=?utf-8?q??=")
    if len(octets) + 2 * escaped <= len(octets) * 4 / 3:
        tokens = ["".join([_Q[octet] for octet in character.encode()]) for character in text]
        return [f"=?utf-8?q?{piece}?=" for piece in _packed(tokens, first - overhead, rest - overhead)]
    return [f"=?utf-8?b?{_base64(piece)}?=" for piece in _cut(octets, (first - overhead) // 4 * 3, (rest - overhead) // 4 * 3)]


def _reads_plain(text: str) -> bool:
    """Return whether every reader shows this text as it is written: single blanks, and nothing that looks encoded."""
    return "=?" not in text and _PRINTABLE.fullmatch(text) is not None


def _packed(tokens: Iterable[str], first: int, rest: int) -> list[str]:
    """Join tokens into pieces of at most `first`, then `rest` characters."""
    pieces: list[str] = []
    piece, room = "", first
    for token in tokens:
        if len(piece) + len(token) > room:
            pieces.append(piece)
            piece, room = "", rest
        piece += token
    return [*pieces, piece]


def _cut(octets: bytes, first: int, rest: int) -> Iterable[bytes]:
    """Split UTF-8 into pieces of at most `first`, then `rest` octets, never inside a character."""
    start, room = 0, first
    while start < len(octets):
        end = start + room
        while end < len(octets) and octets[end] in _CONTINUATION:
            end -= 1
        yield octets[start:end]
        start, room = end, rest


def _base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode()

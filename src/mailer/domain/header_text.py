"""Which text a mail header may have: nothing that ends a line, as written or after a reader has decoded it."""

import binascii
import re
from collections.abc import Iterable, Sequence

MAX_LINE = 998  # characters of a line without its CRLF, RFC 5322 §2.1.1
MAX_NAME = 76  # characters of a field name: with its colon it fits a line of 78
MAX_VALUE = 4_096  # characters of a custom header; RFC 5322 limits lines only, and a long References has some thousand
MAX_SUBJECT = MAX_LINE  # characters; no reader shows more than a line may have
MAX_DISPLAY_NAME = 320  # characters: as long as the longest address, which some senders put there
MAX_FILENAME = 255  # characters, as file systems have it
MAX_WORDS = 100  # encoded-words of one text, each of which costs microseconds: of full length (75 characters) a header holds 54

# C0, DEL and C1 (NEL among them), the Unicode line and paragraph separators, and two noncharacters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
_LINE_END = re.compile(rb"[\x00\r\n]")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Laxer than RFC 2047 on purpose: it finds everything that a lenient reader might decode.
_ENCODED_WORD = re.compile(r"=\?([^?]*)\?([bBqQ])\?(.*?)\?=", re.DOTALL)
_BEGIN_OF_WORD = re.compile(r"=\?[^?]*\?[bBqQ]\?")
_BETWEEN_WORDS = re.compile(r"(?<=\?=) +(?==\?)")  # not shown, RFC 2047 §6.2
_MAX_NESTING = 4

# Names that the service, SES or a relay writes.
_RESERVED = re.compile(
    r"from|to|cc|bcc|reply-to|subject|date|message-id|mime-version|received|authentication-results|return-path|sender"
    r"|(?:content|dkim|arc|resent|x-ses)-.*|x-amz.*",
    re.IGNORECASE | re.ASCII,  # without ASCII, U+017F is an s and U+212A a k
)
# Structured fields: machines read them, and RFC 2047 §5 allows no encoded-word in them.
_STRUCTURED = re.compile(
    r"list-.*|references|in-reply-to|original-message-id|supersedes|obsoletes|auto-submitted|precedence|importance|priority|sensitivity"
    r"|x-priority|x-msmail-priority|feedback-id|autocrypt|thread-index|disposition-notification-(?:to|options)|return-receipt-to"
    r"|errors-to|bounces-to|delivered-to|original-recipient|accept-language|archived-at|expires|expiry-date|reply-by"
    r"|domainkey-signature|vbr-info|require-recipient-valid-since",
    re.IGNORECASE | re.ASCII,
)

_CODECS = {
    name: name
    for name in (
        *("utf-8", "utf-7", "utf-16", "utf-16be", "utf-16le", "utf-32", "utf-32be", "utf-32le", "koi8-r", "koi8-u", "tis-620"),
        *(f"iso-8859-{part}" for part in (*range(1, 11), *range(13, 17))),
        *(f"windows-{page}" for page in range(1250, 1259)),
        *("big5", "big5-hkscs", "euc-jp", "euc-kr", "gb18030", "gb2312", "gbk", "iso-2022-jp", "iso-2022-kr", "shift-jis", "macintosh"),
    )
} | {
    "": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "iso-8859-1",  # most readers read 8-bit octets in it so
    "ascii": "iso-8859-1",
    "latin1": "iso-8859-1",
    "unknown-8bit": "iso-8859-1",  # RFC 1428
    "x-unknown": "iso-8859-1",
    "cp1252": "windows-1252",
    "windows-874": "cp874",
    "iso-8859-11": "tis-620",
    "iso-8859-8-i": "iso-8859-8",
    "ks-c-5601-1987": "euc-kr",
    "x-gbk": "gbk",
    "sjis": "shift-jis",
    "x-sjis": "shift-jis",
    "windows-31j": "cp932",
}
"""The charsets in which an encoded-word is decoded, each with Python's codec for it; all take linear time.

No other name is looked up: some of Python's codecs take quadratic time (punycode), decompress (zlib), or make control characters of
letters (EBCDIC), and the registry keeps each unknown name for ever.
"""


def text_fault(text: str) -> str | None:
    """Return what a header text must not contain, or None if it is safe in any header."""
    if _CONTROL.search(text):
        return "must not contain control characters or line separators"
    return _encoded_fault(text) if "=?" in text else None


def begins_encoded_word(text: str) -> bool:
    """Return whether a lenient reader might find the beginning of an encoded-word in a text."""
    return "=?" in text and _BEGIN_OF_WORD.search(text) is not None


def begun_words(text: str) -> set[str]:
    """Return the beginnings of encoded-words that a lenient reader might find in a text, each from `=?` to its third `?`."""
    return set(_BEGIN_OF_WORD.findall(text))


def name_fault(name: str) -> str | None:
    """Return why a custom header may not have this name, or None if it may."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        return f"must have a name of 1 to {MAX_NAME} letters, digits and !#$%&'*+.^_`|~-"
    if _RESERVED.fullmatch(name):
        return "is written by the service, SES or a relay, and cannot be set"
    return None


def value_fault(name: str, value: str) -> str | None:
    """Return why a custom header may not have this value, or None if it may."""
    if fault := text_fault(value):
        return fault
    if not is_structured(name):
        return None
    if not value.isascii() or begins_encoded_word(value):
        return "must be plain ASCII in this header, without encoded-words"
    if not value.strip() or max(map(len, value.split())) >= MAX_LINE:
        return f"must be words of at most {MAX_LINE - 1} characters in this header, at least one"
    return None


def is_structured(name: str) -> bool:
    """Return whether a header of this name goes out as it is: folded at blanks only, never encoded."""
    return _STRUCTURED.fullmatch(name) is not None


def _encoded_fault(text: str) -> str | None:
    """Decode a text as any reader might, word by word or adjacent words together; return what it must not decode to."""
    return _fault_in(text, together=False) or _fault_in(text, together=True)


def _fault_in(text: str, *, together: bool) -> str | None:
    """Decode a text as often as any reader might."""
    for _ in range(_MAX_NESTING):
        # Cut the text at the last end: without an end ahead, the search would scan the whole rest at every start.
        end = text.rfind("?=") + 2
        words = list(_ENCODED_WORD.finditer(_BETWEEN_WORDS.sub("", text[:end])))
        if not words:
            return None
        if len(words) > MAX_WORDS:
            return f"must have at most {MAX_WORDS} encoded-words"
        charsets = [_charset(word[1]) for word in words]
        if not all(charset in _CODECS for charset in charsets):
            return "must not contain an encoded-word in a charset that is not a common one of mail (utf-8, iso-8859-1 …)"
        text = _decoded(words, [_CODECS[charset] for charset in charsets], together=together) + text[end:]
        if _CONTROL.search(text):
            break
    return "must not contain an encoded-word that hides a control character"


def _charset(name: str) -> str:
    return name.partition("*")[0].strip().lower().replace("_", "-")  # behind the star stands a language, RFC 2231 §5


def _decoded(words: Sequence[re.Match[str]], codecs: Iterable[str], *, together: bool) -> str:
    """Decode the encoded-words of a text, each by its codec, as leniently as any reader.

    Octets of adjacent words in one charset may be joined (`together`) first, as Python's email package does: a character may be split.
    """
    runs: list[tuple[str, str, list[bytes]]] = []  # what stands before, the codec, the octets of each word
    end = 0
    for word, codec in zip(words, codecs, strict=True):
        octets = _octets(word[2], word[3])
        if together and runs and word.start() == end and codec == runs[-1][1]:
            runs[-1][2].append(octets)
        else:
            runs.append((word.string[end : word.start()], codec, [octets]))
        end = word.end()
    return "".join(before + _text(b"".join(octets), codec) for before, codec, octets in runs) + words[-1].string[end:]


def _text(octets: bytes, codec: str) -> str:
    """Decode octets; a line end among them counts as one, whatever it means in the charset."""
    return "\n" if _LINE_END.search(octets) else octets.decode(codec, "replace")


def _octets(encoding: str, encoded: str) -> bytes:
    octets = encoded.encode("utf-8", "replace")
    if encoding in "qQ":
        return binascii.a2b_qp(octets, header=True)
    padding = b"=" * (-len(octets.rstrip(b"=")) % 4)
    try:
        return binascii.a2b_base64(octets.rstrip(b"=") + padding)
    except binascii.Error:
        return octets

"""Tell which text may stand in a mail header: nothing that ends a line, now or after somebody decoded it."""

import binascii
import codecs
import re

MAX_LINE = 998  # characters of a line without its CRLF, RFC 5322 §2.1.1
MAX_NAME = 76  # characters of a field name: with its colon it leaves a line of 78 whole

# C0, DEL and C1 (NEL among them), the Unicode line and paragraph separators, and two noncharacters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
_LINE_END = re.compile(rb"[\x00\r\n]")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Laxer than RFC 2047 on purpose: it finds whatever a lenient reader might decode.
_ENCODED_WORD = re.compile(r"=\?([^?]*)\?([bBqQ])\?(.*?)\?=", re.DOTALL)
_MAX_NESTING = 4

# Names the service writes itself, or that SES and the relays behind it write.
_RESERVED = re.compile(
    r"from|to|cc|bcc|reply-to|subject|date|message-id|mime-version|received|authentication-results|return-path|sender"
    r"|(?:content|dkim|arc|resent|x-ses)-.*|x-amz.*",
    re.IGNORECASE,
)
# Structured fields: machines read them, and RFC 2047 §5 allows no encoded-word in them.
_STRUCTURED = re.compile(
    r"list-.*|references|in-reply-to|original-message-id|supersedes|obsoletes|auto-submitted|precedence|importance|priority|sensitivity"
    r"|x-priority|x-msmail-priority|feedback-id|autocrypt|thread-index|disposition-notification-(?:to|options)|return-receipt-to"
    r"|errors-to|bounces-to|delivered-to|original-recipient|accept-language|archived-at|expires|expiry-date|reply-by"
    r"|domainkey-signature|vbr-info|require-recipient-valid-since",
    re.IGNORECASE,
)


def text_fault(text: str) -> str | None:
    """Say what a header text must not hold, or None where it is safe in any header."""
    if _CONTROL.search(text):
        return "must not contain control characters or line separators"
    if "=?" in text and _decodes_to_control(text):
        return "must not contain an encoded-word that hides a control character"
    return None


def name_fault(name: str) -> str | None:
    """Say why a custom header may not have this name, or None where it may."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        return f"must have a name of 1 to {MAX_NAME} letters, digits and !#$%&'*+.^_`|~-"
    if _RESERVED.fullmatch(name):
        return "is written by the service, SES or a relay, and cannot be set"
    return None


def value_fault(name: str, value: str) -> str | None:
    """Say why a custom header may not have this value, or None where it may."""
    if fault := text_fault(value):
        return fault
    if not is_structured(name):
        return None
    if not value.isascii() or _encoded_words(value):
        return "must be plain ASCII in this header, without encoded-words"
    if not value.strip() or max(map(len, value.split())) >= MAX_LINE:
        return f"must be words of at most {MAX_LINE - 1} characters in this header, at least one"
    return None


def is_structured(name: str) -> bool:
    """Tell whether a header of this name goes out as it is, folded at blanks alone and never encoded."""
    return _STRUCTURED.fullmatch(name) is not None


def _encoded_words(text: str) -> list[tuple[str, str, str]]:
    """Give charset, encoding and encoded text of all that looks like an encoded-word."""
    # A search that could not find its end would scan the whole rest at every start: cut the text at the last end.
    return _ENCODED_WORD.findall(text, 0, text.rfind("?=") + 2)


def _decodes_to_control(text: str) -> bool:
    for _ in range(_MAX_NESTING):
        words = _encoded_words(text)
        if not words:
            return False
        decoded = [_decoded(*word) for word in words]
        if None in decoded:
            return True
        text = "".join(filter(None, decoded))
    return True


def _decoded(charset: str, encoding: str, encoded: str) -> str | None:
    """Decode one encoded-word as leniently as any reader; None where it holds a control character."""
    raw = _octets(encoding, encoded)
    try:
        text = codecs.decode(raw, charset.partition("*")[0].strip() or "utf-8", "replace")
    except (LookupError, ValueError, TypeError):
        text = raw.decode("latin-1")
    return None if _LINE_END.search(raw) or _CONTROL.search(str(text)) else str(text)


def _octets(encoding: str, encoded: str) -> bytes:
    octets = encoded.encode("utf-8", "replace")
    if encoding in "qQ":
        return binascii.a2b_qp(octets, header=True)
    padding = b"=" * (-len(octets.rstrip(b"=")) % 4)
    try:
        return binascii.a2b_base64(octets.rstrip(b"=") + padding)
    except binascii.Error:
        return octets

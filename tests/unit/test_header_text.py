"""Encoded-words in a caller's text: the accepted charsets, and control characters hidden in them."""

import codecs

import pytest

from mailer.domain.header_text import _CODECS, MAX_WORDS, text_fault

OTHERS = ["punycode", "idna", "zlib", "base64", "hex", "unicode_escape", "raw_unicode_escape", "cp037", "ibm1140", "undefined", "x", "ü"]


@pytest.mark.parametrize("charset", _CODECS)
def test_common_charsets_are_accepted(charset: str) -> None:
    """They are accepted in any case, with - or _, with a language suffix; each has a codec in Python."""
    assert text_fault(f"=?{charset}?q?hi?=") is None
    assert text_fault(f"=?{charset.upper().replace('-', '_')}*en?Q?hi?=") is None


@pytest.mark.parametrize("charset", _CODECS)
def test_no_charset_hides_a_line_end(charset: str) -> None:
    """It is detected in the octets, for every charset."""
    assert text_fault(f"a =?{charset}?q?=0D=0ABcc:_x?= b")
    assert text_fault(f"a =?{charset}?b?DQpCY2M6IHg=?= b")


@pytest.mark.parametrize("charset", OTHERS)
def test_any_other_charset_is_refused(charset: str) -> None:
    """Its meaning depends on the reader: in EBCDIC "%" is a line end, `unicode_escape` writes one as two letters."""
    assert "charset" in str(text_fault(f"=?{charset}?q?x?="))


def test_a_text_has_at_most_100_encoded_words() -> None:
    """Each costs time to decode; a hundred full ones are more than a header can have."""
    assert text_fault("=?utf-8?q?x?= " * MAX_WORDS) is None
    assert text_fault("=?utf-8?q?x?= " * (MAX_WORDS + 1)) == "must have at most 100 encoded-words"


def test_unknown_charset_names_are_not_looked_up() -> None:
    """Python's codec registry caches every name that is looked up."""
    looked_up: list[str] = []

    def search(name: str) -> None:
        looked_up.append(name)

    codecs.register(search)
    try:
        text_fault("=?x-asked-for-once?q?x?= =?x-asked-for-twice?b?eA==?=")
    finally:
        codecs.unregister(search)
    assert looked_up == []


@pytest.mark.parametrize(
    "text",
    [
        "=?utf-8?q?=3D=3Futf-8=3Fq=3F=3D0A=3F=3D?=",
        "=?utf-8?q?=3D=3Futf-8?=?q?=0A?=",  # decoded text together with the text after it
        "=?utf-8?q?=3D=3Futf-8=3Fq=3F=3D0A=3F?==",
        "=?utf-8?q?=3D?= =?utf-8?q?=3Futf-8=3Fq=3F=3D0A=3F=3D?=",
        "=?utf-8?q?=3D=3Fcp037=3Fq=3Fx=3F=3D?=",
    ],
)
def test_nested_encoded_words_are_checked(text: str) -> None:
    """Some readers decode repeatedly."""
    assert text_fault(text)


SPLIT = [
    "=?utf-8?q?=E2=80?= =?utf-8?q?=A8?=",  # U+2028
    "=?utf-8?q?=C2?= =?UTF-8?b?hQ==?=",  # U+0085
    "=?utf-7?q?+AA?= =?utf-7?q?o-?=",
    "=?utf-7?q?+AA?==?utf-7?q?o-?=",
    "Hi =?utf-8?q?=C3=A9?= =?utf-8*en?q?=E2?= =?utf8?q?=80=A9?= there",  # U+2029
]


@pytest.mark.parametrize("text", SPLIT)
def test_a_character_split_over_encoded_words_is_checked(text: str) -> None:
    """RFC 2047 forbids it, but many readers join the parts."""
    assert text_fault(text) == "must not contain an encoded-word that hides a control character"


@pytest.mark.parametrize(
    "text", ["=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "=?utf-8?q?=E2=80?= and =?utf-8?q?=A8?=", "=?utf-8?q?=E2=80?= =?koi8-r?q?=A8?="]
)
def test_words_without_a_control_character_are_accepted(text: str) -> None:
    """Cases: another character, separated words, another charset."""
    assert text_fault(text) is None

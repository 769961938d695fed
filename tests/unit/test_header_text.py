"""Encoded-words in a caller's text: which charsets are read, and what none of them may hide."""

import codecs

import pytest

from mailer.domain.header_text import _CODECS, MAX_WORDS, text_fault

OTHERS = ["punycode", "idna", "zlib", "base64", "hex", "unicode_escape", "raw_unicode_escape", "cp037", "ibm1140", "undefined", "x", "ü"]


@pytest.mark.parametrize("charset", _CODECS)
def test_the_charsets_of_mail_are_read(charset: str) -> None:
    """In any case, with - or _, with a language behind; each has a codec in Python."""
    assert text_fault(f"=?{charset}?q?hi?=") is None
    assert text_fault(f"=?{charset.upper().replace('-', '_')}*en?Q?hi?=") is None


@pytest.mark.parametrize("charset", _CODECS)
def test_no_charset_hides_a_line_end(charset: str) -> None:
    """As octets, whatever the charset makes of them."""
    assert text_fault(f"a =?{charset}?q?=0D=0ABcc:_x?= b")
    assert text_fault(f"a =?{charset}?b?DQpCY2M6IHg=?= b")


@pytest.mark.parametrize("charset", OTHERS)
def test_any_other_charset_is_refused(charset: str) -> None:
    """What it may mean to some reader nobody knows: in EBCDIC "%" is a line end, `unicode_escape` writes one as two letters."""
    assert "charset" in str(text_fault(f"=?{charset}?q?x?="))


def test_a_text_has_so_many_words_at_most() -> None:
    """Each costs time to decode; a hundred are more than a header holds of full length."""
    assert text_fault("=?utf-8?q?x?= " * MAX_WORDS) is None
    assert text_fault("=?utf-8?q?x?= " * (MAX_WORDS + 1)) == "must have at most 100 encoded-words"


def test_no_name_of_a_charset_is_looked_up() -> None:
    """Python's registry of codecs keeps every name that it was ever asked for."""
    asked: list[str] = []

    def search(name: str) -> None:
        asked.append(name)

    codecs.register(search)
    try:
        text_fault("=?x-asked-for-once?q?x?= =?x-asked-for-twice?b?eA==?=")
    finally:
        codecs.unregister(search)
    assert asked == []


@pytest.mark.parametrize(
    "text",
    [
        "=?utf-8?q?=3D=3Futf-8=3Fq=3F=3D0A=3F=3D?=",
        "=?utf-8?q?=3D=3Futf-8?=?q?=0A?=",  # what is decoded, and what stands behind it
        "=?utf-8?q?=3D=3Futf-8=3Fq=3F=3D0A=3F?==",
        "=?utf-8?q?=3D?= =?utf-8?q?=3Futf-8=3Fq=3F=3D0A=3F=3D?=",
        "=?utf-8?q?=3D=3Fcp037=3Fq=3Fx=3F=3D?=",
    ],
)
def test_what_a_second_decoding_finds_counts_too(text: str) -> None:
    """Some readers decode until nothing is left to decode."""
    assert text_fault(text)


SPLIT = [
    "=?utf-8?q?=E2=80?= =?utf-8?q?=A8?=",  # U+2028
    "=?utf-8?q?=C2?= =?UTF-8?b?hQ==?=",  # U+0085
    "=?utf-7?q?+AA?= =?utf-7?q?o-?=",
    "=?utf-7?q?+AA?==?utf-7?q?o-?=",
    "Hi =?utf-8?q?=C3=A9?= =?utf-8*en?q?=E2?= =?utf8?q?=80=A9?= there",  # U+2029
]


@pytest.mark.parametrize("text", SPLIT)
def test_a_character_that_is_split_among_words_counts(text: str) -> None:
    """RFC 2047 forbids it, and many readers put it together all the same."""
    assert text_fault(text) == "must not contain an encoded-word that hides a control character"


@pytest.mark.parametrize(
    "text", ["=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "=?utf-8?q?=E2=80?= and =?utf-8?q?=A8?=", "=?utf-8?q?=E2=80?= =?koi8-r?q?=A8?="]
)
def test_what_makes_no_control_character_is_taken(text: str) -> None:
    """Another character, words apart, another charset."""
    assert text_fault(text) is None

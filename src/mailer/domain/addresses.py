"""Convert a caller's address into the only form that SES takes: a strict ASCII addr-spec."""

import re
from functools import lru_cache
from unicodedata import normalize

import idna

from mailer.domain.header_text import begins_encoded_word

MAX_ADDRESS = 254  # octets of an addr-spec: RFC 5321 §4.5.3.1.3 allows 256 with the angle brackets
MAX_LOCAL_PART = 64  # octets, RFC 5321 §4.5.3.1.1
MAX_DOMAIN = 253  # octets, RFC 1035 §2.3.4 without the root
MAX_WRITTEN = MAX_LOCAL_PART + 1 + MAX_DOMAIN  # characters of an address before its domain is written in punycode

_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")


class AddressError(ValueError):
    """An address that cannot be used; the text says what is allowed and never shows the address."""


def ascii_address(address: str) -> str:
    """Return the addr-spec for the wire: the local part as written, an IDN domain in punycode.

    Raises:
        AddressError: for quoted local parts, comments, groups, address literals and anything else that is not a plain addr-spec.
    """
    local_part, at, domain = address.rpartition("@")
    if not at:
        raise AddressError("must be an address of the form local@domain")
    if len(local_part) > MAX_LOCAL_PART:
        raise AddressError(f"must have a local part of at most {MAX_LOCAL_PART} characters")
    if not _LOCAL_PART.fullmatch(local_part):
        raise AddressError("must have an ASCII local part of letters, digits and !#$%&'*+/=?^_`{|}~-, dots only between them, and one @")
    if begins_encoded_word(local_part):
        raise AddressError("must have a local part that is no encoded-word (=?charset?q?…?=): some readers show another address then")
    if len(domain) > MAX_DOMAIN:  # before anything is computed or cached
        raise AddressError(f"must have a domain of at most {MAX_DOMAIN} characters")
    spec = f"{local_part}@{ascii_domain(domain)}"
    if len(spec) > MAX_ADDRESS:
        raise AddressError(f"must have at most {MAX_ADDRESS} characters, its domain in punycode")
    return spec


def address_fault(address: str) -> str | None:
    """Return what is wrong with an address, or None if it can be used."""
    try:
        ascii_address(address)
    except AddressError as error:
        return str(error)
    return None


@lru_cache(maxsize=1024)
def ascii_domain(domain: str) -> str:
    """Return a domain in its DNS form; IDN domains are mapped by UTS 46 (non-transitional) and written in punycode."""
    name = domain if domain.isascii() else _punycode(domain)
    if not _HOST_NAME.fullmatch(name) or len(name) > MAX_DOMAIN:
        raise AddressError(
            "must have a domain name with a dot: labels of 1 to 63 letters, digits and inner hyphens, no final dot, no IP address"
        )
    if name.rpartition(".")[2].isdigit():
        raise AddressError("must have a domain name, not an IP address")
    return name


def same_mailbox(spec: str) -> str:
    """Return a form that is equal for all addr-specs of one mailbox: only the domain ignores case (RFC 5321 §2.4)."""
    local_part, _, domain = spec.rpartition("@")
    return f"{local_part}@{domain.lower()}"


_DOTS = re.compile(r"[.\u3002\uff0e\uff61]")  # UTS 46 §2.3
_MAX_LABEL = 63  # octets, RFC 1035 §2.3.4
_PREFIX = len("xn--")


def _punycode(domain: str) -> str:
    # Punycode takes time quadratic in a label's length, so check lengths first. It has at least one octet for each character.
    labels = _DOTS.split(normalize("NFC", domain))
    if max(map(len, labels)) > _MAX_LABEL or sum(len(label) + 1 + _PREFIX * (not label.isascii()) for label in labels) > MAX_DOMAIN + 1:
        raise AddressError(f"must have a domain of at most {MAX_DOMAIN} characters in punycode, its labels of at most {_MAX_LABEL}")
    try:
        return idna.encode(domain, uts46=True, std3_rules=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("must have a domain that IDNA 2008 allows (one with emoji: in its xn-- form)") from error

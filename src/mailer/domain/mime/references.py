"""Decode HTML's character references (`&amp;`, `&#8364;`), also those with numbers on which Python's own decoder fails."""

import html
import re

# Python reads no decimal number of more than 4300 digits (sys.set_int_max_str_digits), and makes a number of any others.
_ZEROS = re.compile(r"&#([xX]?)0++(?=[0-9A-Fa-f])")
_TOO_LARGE = re.compile(r"&#(?:[0-9]{8,}+|[xX][0-9A-Fa-f]{7,}+);?")  # than U+10FFFF


def unescape(text: str) -> str:
    """Return a text with its references decoded; numbers that are no character become U+FFFD."""
    if "&" not in text:
        return text
    if "&#" in text:
        text = _TOO_LARGE.sub("\ufffd", _ZEROS.sub(r"&#\1", text))
    return html.unescape(text)

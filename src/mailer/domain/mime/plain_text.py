"""Convert an HTML mail to plain text: paragraphs, lists and rows as lines, links with their target."""

import re

from mailer.domain.mime.references import unescape

# One alternative for each thing that "<" can start. Each takes all that it scans, so no input is scanned twice; what is
# not closed runs to the end of the text, as it does in a browser.
_ATTRIBUTES = r"""(?:[^>"']|"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))*+"""
_MARKUP = re.compile(
    rf"""
      <!--.*?(?:-->|\Z)
    | <(?P<raw>script|style|title|template|textarea|svg)\b{_ATTRIBUTES}(?:>.*?(?:</(?P=raw)\b[^>]*(?:>|\Z)|\Z)|\Z)
    | <[!?][^>]*(?:>|\Z)
    | <(?P<end>/?)(?P<tag>[a-z][a-z0-9:-]*)(?P<attributes>{_ATTRIBUTES})(?:>|\Z)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE | re.ASCII,
)
_ATTRIBUTE = re.compile(r"""(?<![a-z-])([a-z-]++)\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE | re.ASCII)
_BLANKS = re.compile(r"[ \t\r\n\f]+")  # HTML's own; a no-break space is text
_LINE_END_BLANKS = re.compile(r"(?<! ) +(?=\n)")

_PARAGRAPH = re.compile(r"address|blockquote|dl|figure|h[1-6]|hr|ol|p|pre|table|ul")
_LINE = re.compile(r"article|aside|center|dd|div|dt|fieldset|footer|form|header|li|main|nav|section|tr")
_TARGETS = ("http://", "https://", "mailto:", "tel:")
_MAX_DEPTH = 8  # of quotes and lists that is shown


def plain_text(html: str) -> str:
    """Return the text of an HTML page; empty if it has none.

    Takes time linear in its length: some microseconds for each tag and reference, of which a request has at most `MAX_MARKUP`, and
    nanoseconds for each other character.
    """
    writer = _Writer()
    at = 0
    for markup in _MARKUP.finditer(html):
        writer.text(unescape(html[at : markup.start()]))
        at = markup.end()
        if markup["tag"] and markup["end"]:
            writer.close(markup["tag"].lower())
        elif markup["tag"]:
            writer.open(markup["tag"].lower(), markup["attributes"])
    writer.text(unescape(html[at:]))
    return _LINE_END_BLANKS.sub("", "".join(writer.written)).strip()


class _Writer:
    """Takes text and tags in order and writes the plain text."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self._line_ends = 0  # owed before the next text
        self._mark = ""  # of the list item that begins with the next text
        self._quotes = 0
        self._preformatted = 0
        self._lists: list[int] = []  # the number of the last item, -1 in a list without numbers
        self._link: tuple[str, int] | None = None  # its target, and where its text begins in `written`

    def text(self, text: str) -> None:
        if not self._preformatted:
            text = _BLANKS.sub(" ", text)
            if self._line_ends or not self.written or self.written[-1].endswith(" "):
                text = text.lstrip(" ")
        if not text:
            return
        if self._line_ends and self.written:
            self.written.append("\n" * self._line_ends)
        if self._line_ends or not self.written:
            self.written.append("> " * min(self._quotes, _MAX_DEPTH))
        self.written += (self._mark, text)
        self._line_ends, self._mark = 0, ""

    def open(self, tag: str, attributes: str) -> None:
        self._space(tag)
        match tag:
            case "a":
                self._end_link()
                self._begin_link(_attribute(attributes, "href").strip())
            case "blockquote":
                self._quotes += 1
            case "br":
                self._line_ends = min(self._line_ends + 1, 2)
            case "hr":
                self.text("-" * 20)
                self._space(tag)
            case "img":
                self.text(_attribute(attributes, "alt"))
            case "li":
                self._begin_item()
            case "ol" | "ul":
                self._lists.append(0 if tag == "ol" else -1)
            case "pre":
                self._preformatted += 1

    def close(self, tag: str) -> None:
        match tag:
            case "a":
                self._end_link()
            case "blockquote":
                self._quotes = max(self._quotes - 1, 0)
            case "ol" | "ul":
                del self._lists[-1:]
            case "pre":
                self._preformatted = max(self._preformatted - 1, 0)
        self._space(tag)

    def _space(self, tag: str) -> None:
        """Note the line ends before and after an element; a list inside a list continues in the next line."""
        if _PARAGRAPH.fullmatch(tag):
            self._line_ends = max(self._line_ends, 1 if self._lists else 2)
        elif _LINE.fullmatch(tag):
            self._line_ends = max(self._line_ends, 1)
        elif tag in {"td", "th"}:
            self.text(" ")

    def _begin_item(self) -> None:
        indent = "  " * min(max(len(self._lists) - 1, 0), _MAX_DEPTH)
        if self._lists and self._lists[-1] >= 0:
            self._lists[-1] += 1
            self._mark = f"{indent}{self._lists[-1]}. "
        else:
            self._mark = f"{indent}- "

    def _begin_link(self, target: str) -> None:
        if target.lower().startswith(_TARGETS):
            self._link = (target, len(self.written))

    def _end_link(self) -> None:
        """Write the target of the link that ends here, unless its text has it; links do not nest, so a new one ends the last."""
        if self._link is None:
            return
        target, begin = self._link
        self._link = None
        said = "".join(self.written[begin:]).strip()
        if not said:
            self.text(target)
        elif target.removeprefix("mailto:").removeprefix("tel:").rstrip("/") not in said:
            self.text(f" ({target})")


def _attribute(attributes: str, name: str) -> str:
    for found, *values in _ATTRIBUTE.findall(attributes):
        if found.lower() == name:
            return _BLANKS.sub(" ", unescape("".join(values)))
    return ""

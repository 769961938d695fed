"""The text part derived from HTML."""

import time

import pytest

from mailer.domain.mime.plain_text import plain_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>Hi</h1><p>a  b\n c</p><p>d<br>e", "Hi\n\na b c\n\nd\ne"),
        ("<ul><li>a<li>b<ol><li>c<li>d</ol></ul>e", "- a\n- b\n  1. c\n  2. d\n\ne"),
        ("<table><tr><td>Total</td><td>5 €</td></tr><tr><td>VAT</td><td>1 €</td></tr></table>", "Total 5 €\nVAT 1 €"),
        ("a &amp; b &lt;c&gt; &nbsp;&#8364;", "a & b <c> \xa0€"),
        ("<a href='https://x.example/a?b=1&amp;c=2'>here</a>", "here (https://x.example/a?b=1&c=2)"),
        ("<a href='https://x.example/'>https://x.example</a>", "https://x.example"),
        ("<a href='mailto:a@b.example'>a@b.example</a>", "a@b.example"),
        ("<a href='https://x.example'><img src=y></a>", "https://x.example"),
        ("<a href='javascript:x()'>here</a> <a name=z>there</a>", "here there"),
        ("<a href=https://x.example>a<a href=https://y.example>b</a>", "a (https://x.example)b (https://y.example)"),
        ("<img alt='A dog' src=x> and <img src=y>", "A dog and"),
        ("<style>p{}</style><script>if (a<b) x()</script><title>t</title><!-- c -->text", "text"),
        ("<!DOCTYPE html><html><head><meta charset=x><body>text", "text"),
        ("<!--[if mso]><p>Outlook</p><![endif]-->all<![if !mso]>others<![endif]>", "allothers"),
        ("<pre>a\n  b</pre>c", "a\n  b\n\nc"),
        ("<blockquote>a<p>b</blockquote>c", "> a\n\n> b\n\nc"),
        ("a<hr>b", "a\n\n--------------------\n\nb"),
        ("<p title=\"a > b\">x</p><p title='>'>y", "x\n\ny"),
        ("1 < 2 and 3 <4", "1 < 2 and 3 <4"),
        ("<\u017fcript>what a browser shows</\u017fcript>", "<\u017fcript>what a browser shows</\u017fcript>"),
        ("&#65;&#0065;&#x41;&#X0041&#" + "0" * 5_000 + "65;b", "AAAAAb"),
        ("&#" + "9" * 5_000 + ";&#x" + "f" * 5_000 + ";&#1114112;&#xD800;", "\ufffd\ufffd\ufffd\ufffd"),
        ("<img alt='&#" + "1" * 5_000 + "'><a href='http://x?&#" + "1" * 5_000 + "'>y</a>", "\ufffdy (http://x?\ufffd)"),
        ("</ul></ol></blockquote></pre></a>x", "x"),
        ("text <unclosed", "text"),
        ("", ""),
        ("<p> <br> </p>", ""),
    ],
)
def test_html_is_converted_to_plain_text(html: str, text: str) -> None:
    """Paragraphs, lists, rows, links, quotes and character references are readable."""
    assert plain_text(html) == text


@pytest.mark.parametrize(
    "unit",
    ["<a ", "<!--", '<a href="', "<a href=http://x>", "<script", "<script></scrip", "<", "<ul><li>", "<blockquote>", "<td>", " ", "&"],
)
def test_conversion_takes_linear_time(unit: str) -> None:
    """A hostile page of a megabyte takes seconds at most; with quadratic time it would take hours."""
    before = time.process_time()
    plain_text(unit * (1_000_000 // len(unit)))
    plain_text("<a " + unit * (1_000_000 // len(unit)) + ">")
    assert time.process_time() - before < 20

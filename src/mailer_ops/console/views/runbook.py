"""Find the runbook's step for an alarm."""

import re

_WORD = re.compile(r"[^a-z0-9 -]")


def steps(text: str, section: str) -> str:
    """Return the paragraph that starts with `Do:` in the section with this anchor, as plain text; empty if there is none."""
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        if anchor(title) == section:
            _, found, todo = body.partition("Do: ")
            return _plain(todo.partition("\n```")[0]) if found else ""
    return ""


def anchor(title: str) -> str:
    """Return GitHub's anchor of a title."""
    return _WORD.sub("", title.strip().lower()).replace(" ", "-")


def _plain(markdown: str) -> str:
    """Return a paragraph without Markdown; links keep their text."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(words.replace("`", "").replace("**", "").split())

"""Find what the runbook says is to be done about an alarm."""

import re

_WORD = re.compile(r"[^a-z0-9 -]")


def steps(text: str, section: str) -> str:
    """Return what the section with this anchor says from `Do:` on, as plain text; nothing where it says none."""
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        if anchor(title) == section:
            _, found, todo = body.partition("Do: ")
            return _plain(todo.partition("\n```")[0]) if found else ""
    return ""


def anchor(title: str) -> str:
    """Return the anchor that GitHub gives a title."""
    return _WORD.sub("", title.strip().lower()).replace(" ", "-")


def _plain(markdown: str) -> str:
    """Return a paragraph without marks; links keep their words."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(words.replace("`", "").replace("**", "").split())

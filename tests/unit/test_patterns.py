"""What holds for every regular expression in the source."""

import re

import pytest

from support.aws.tables import ROOT

LINES = [(file, line) for file in (ROOT / "src").rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
IGNORING = [(file.name, line.strip()) for file, line in LINES if re.search(r"IGNORECASE|\bre\.I\b|\(\?[a-z]*i[a-z]*[:)]", line)]


@pytest.mark.parametrize(("file", "line"), IGNORING)
def test_case_is_ignored_in_ascii_alone(file: str, line: str) -> None:
    """Else U+017F is an "s" and U+212A a "k": text passes for ASCII that cannot be written as such."""
    assert re.search(r"ASCII|\(\?ai", line), file


def test_patterns_that_ignore_case_are_found() -> None:
    """The guard of the guard."""
    assert len(IGNORING) >= 8

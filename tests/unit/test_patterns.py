"""Rules for all regular expressions in the source."""

import re

import pytest

from support.aws.tables import ROOT

LINES = [(file, line) for file in (ROOT / "src").rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
IGNORING = [(file.name, line.strip()) for file, line in LINES if re.search(r"IGNORECASE|\bre\.I\b|\(\?[a-z]*i[a-z]*[:)]", line)]


@pytest.mark.parametrize(("file", "line"), IGNORING)
def test_case_is_ignored_only_in_ascii(file: str, line: str) -> None:
    """Otherwise U+017F matches "s" and U+212A matches "k": other text would pass as ASCII."""
    assert re.search(r"ASCII|\(\?ai", line), file


def test_patterns_that_ignore_case_are_found() -> None:
    """This tests the test above."""
    assert len(IGNORING) >= 8

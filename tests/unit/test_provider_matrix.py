"""The documentation's tables of providers are what the code does."""

from tools.docs.provider_matrix import PAGE, calls_table, faults_table, lines_that_differ


def test_documented_tables_are_true() -> None:
    """State × call and fault × credentials × state, as docs/providers.md has them; tests/tools/docs/provider_matrix.py writes them."""
    assert list(lines_that_differ(PAGE.read_text(encoding="utf-8"))) == []


def test_tables_say_something() -> None:
    """The guard of the guard: every state and every kind of credentials has its rows."""
    assert len(calls_table().splitlines()) == 2 + 7
    assert {line.split("|")[3].strip() for line in faults_table().splitlines()[2:]} == {"access key", "role"}

"""docs/delivery.md has the rules of the state machine."""

from tools.docs.delivery_tables import PAGE, filled


def test_the_table_of_rules_is_generated_from_the_state_machine() -> None:
    """`PYTHONPATH=src:tests python -m tools.docs.delivery_tables` writes it."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page)

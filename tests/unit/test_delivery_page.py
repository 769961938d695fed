"""docs/delivery.md tells of the rules as they are."""

from tools.docs.delivery_tables import PAGE, filled


def test_the_table_of_rules_is_the_machine_s() -> None:
    """`PYTHONPATH=src:tests python -m tools.docs.delivery_tables` writes it."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page)

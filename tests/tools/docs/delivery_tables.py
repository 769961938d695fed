"""Generate the table of docs/delivery.md from the rules: `python -m tools.docs.delivery_tables` writes it."""

from pathlib import Path

from mailer.domain.delivery import RULES, Rule

PAGE = Path(__file__).resolve().parents[3] / "docs" / "delivery.md"
BEGIN, END = "<!-- rules: made by tests/tools/docs/delivery_tables.py -->", "<!-- rules end -->"


def rules_table() -> str:
    """Return the table of rules: source, target and conditions of each."""
    rows = [("rule", "from", "to", "only if"), ("---",) * 4, *(_row(rule) for rule in RULES.values())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _row(rule: Rule) -> tuple[str, ...]:
    sources = ", ".join(sorted(f"`{source}`" if source else "∅" for source in rule.sources))
    target = f"`{rule.target}`" if rule.target else "as it is"
    return f"`{rule.name}`", sources, target, "; ".join(sorted(guard.value for guard in rule.guards)) or "–"


def filled(page: str) -> str:
    """Return the page with the table generated between its markers."""
    head, _, rest = page.partition(BEGIN)
    _, found, tail = rest.partition(END)
    assert found, f"{PAGE} lacks its markers"
    return f"{head}{BEGIN}\n\n{rules_table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""The table of error codes in docs/api.md, made of the codes: `PYTHONPATH=src:tests python tests/error_tables.py` writes it there."""

from pathlib import Path

from mailer.domain.errors import CODES, Kind

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
BEGIN, END = "<!-- codes: made by tests/error_tables.py -->", "<!-- codes end -->"

MEANS = {
    Kind.FAILED: "the request has failed",
    Kind.TENANT: "the tenant's account or config is at fault; mail waits",
    Kind.DEFERRED: "passes by itself; mail waits",
    Kind.UNKNOWN: "nobody can know",
    Kind.API: "answers a call, never stands on a record",
}


def codes_table() -> str:
    """Every code: what it means for the request, and its hint."""
    rows = [("code", "what it means", "hint"), ("---",) * 3, *((f"`{code}`", MEANS[row.kind], row.hint) for code, row in CODES.items())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def filled(page: str) -> str:
    """Return the page with the table made anew between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, found, tail = rest.partition(END)
    assert found, f"{PAGE} lacks its marks"
    return f"{head}{BEGIN}\n\n{codes_table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Count what became of mail, and show the counts."""

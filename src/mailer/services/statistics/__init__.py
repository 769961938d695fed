"""Count the outcomes of mail, and show the counts."""

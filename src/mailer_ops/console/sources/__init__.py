"""What the console asks: each source answers with a value, or with the trouble that it had."""

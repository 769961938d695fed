"""The tables, and their streams."""

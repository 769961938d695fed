"""Convert data for display; pure functions."""

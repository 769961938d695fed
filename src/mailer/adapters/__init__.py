"""Calls to AWS: one module per service or table, each behind a Protocol of `mailer.ports`."""

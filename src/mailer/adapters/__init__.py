"""We call AWS here: one module a service or table, each behind a Protocol of `mailer.ports`."""

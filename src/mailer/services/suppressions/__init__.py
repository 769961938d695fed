"""Keep the addresses that tenants' mail leaves out: what SES's events add, what callers add, show and lift, what sending asks."""

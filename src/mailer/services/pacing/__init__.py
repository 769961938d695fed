"""Keep every sending account at the rate that SES allows."""

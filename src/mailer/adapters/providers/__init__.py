"""From a tenant's encrypted config to a mail handed over: credentials, clients, SES and SMTP."""

"""Tenants' providers: decrypted configs, credentials, clients, SES and SMTP."""

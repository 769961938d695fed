"""What the provider API does: store, show, verify, disable, enable and delete a tenant's provider."""

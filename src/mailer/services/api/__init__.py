"""What the messages API does: accept, show, cancel, preview and resolve send requests."""

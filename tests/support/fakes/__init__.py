"""In-memory fakes of the ports, and dependencies of the services built from them."""

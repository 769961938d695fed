"""In-memory fakes of the ports, and the services' dependencies built from them."""

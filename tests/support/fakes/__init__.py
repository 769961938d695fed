"""In-memory stand-ins for the ports, and the services' dependencies made of them."""

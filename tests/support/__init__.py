"""Shared by tests: fakes, servers, and stand-ins for AWS."""

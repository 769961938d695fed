"""Decisions, pure: what a message, a provider and a delivery may be and become."""

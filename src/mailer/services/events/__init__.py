"""Publish events on the event bus."""

"""Publish what happened on the event bus."""

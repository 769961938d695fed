"""Shared by the services: end a request unsent, pin its uploads, find and delete its parked body, recognise its messages."""

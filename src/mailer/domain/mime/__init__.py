"""Compose the raw message: addresses → headers → bodies → parts → message."""

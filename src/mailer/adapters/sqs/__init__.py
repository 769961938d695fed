"""The send queue and its dead-letter queue."""

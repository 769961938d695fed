"""The order in which things happen; no AWS in here, every dependency is an argument."""

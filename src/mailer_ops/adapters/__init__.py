"""The AWS calls that only operators make."""

"""Calls to AWS that only operators make."""

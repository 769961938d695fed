"""Simulations of a growing platform: the real classes, with a simulated clock and counted AWS calls.

    PYTHONPATH=src:tests python -m tools.scale keys     KMS and STS calls per mail, by the number of tenants, and a sandbox's memory

docs/scale.md has the results. Seeds are fixed: the same code prints the same figures.
"""

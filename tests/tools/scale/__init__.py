"""Simulations of what a growing platform meets: the real classes, a clock that is set, and AWS's side counted.

    PYTHONPATH=src:tests python -m tools.scale keys     calls of KMS and STS a mail, by the number of tenants, and a sandbox's memory

docs/scale.md tells what came of it. Seeds are fixed: the same code prints the same figures.
"""

"""Deterministic simulation of the real services: a seed determines a scenario of requests, outages, crashes and clock skew.

    tasks.py     simulated time and processes: threads of which one runs at a time, switched at their calls
    faults.py    which calls fail, and how
    world.py     queue, table, bucket and provider rows in simulated time; every call of them may fail
    ses.py       SES, with a ledger of accepted mail
    feedback.py  SES's events, and FeedbackFunction
    scenario.py  the events of one scenario
    check.py     the invariants of every scenario

`python -m tools.simulation SEED` replays one with its trace; `python -m tools.simulation --first N --scenarios M` runs many. With
`--feedback` there are SES events; many scenarios are then run with and without them, for comparison.
"""

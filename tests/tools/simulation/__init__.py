"""The real services in a simulated world: one seed is one story of requests, outages, crashes and clocks, the same every time.

    tasks.py     simulated time and processes: threads of which one runs at a time, switched where they call out
    faults.py    which call of a story fails, and how
    world.py     queue, table, bucket and provider rows that live in simulated time; every call of them may fail
    ses.py       an SES with a ledger of its own
    feedback.py  SES's events of what it accepted, and FeedbackFunction
    story.py     what happens in one seed
    check.py     what must hold in every story

`python -m tools.simulation SEED` replays one with its trace; `python -m tools.simulation --first N --stories M` runs many. With
`--feedback` SES's events come back; many are played without them too, to compare.
"""

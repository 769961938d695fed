"""Model checker of the delivery state machine: every order of steps, every crash, every lost response, with the rules of the code.

    records.py   the record, reduced to the fields that matter; the real rules and changes applied to it
    state.py     a state: record, messages on the queue, pending writes, mail accepted by SES
    worker.py    moves of a worker
    others.py    moves of API, caller, sweeper, operator and SES's events
    moves.py     all moves, including those of the queue and crashes
    explore.py   explores all reachable states, and checks the invariants in each
    setups.py    the models to explore, and deliberately wrong machines

`python -m tools.model` explores them all and prints the number of states of each.
"""

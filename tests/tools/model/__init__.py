"""An exhaustive model of the delivery machine: every order of steps, every crash, every lost reply, ruled by the table that the code obeys.

    records.py   the record, reduced to what decides its future; the real rules and changes applied to it
    world.py     everything that is at one moment: record, messages on the queue, writes that are about to be made, what SES accepted
    worker.py    what a worker may do next
    others.py    what API, caller, sweeper and operator may do
    moves.py     both, and the queue's and the crashes' own moves
    explore.py   walks every state that can be reached, and checks each promise in it
    setups.py    the worlds that are walked, and machines that are broken on purpose

`python -m tools.model` walks them all and prints how many states each has.
"""

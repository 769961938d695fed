"""Send a batch of requests off the queue.

send.py          the batch: read, prepare, reserve slots, render, pass the fence, hand over
intake.py        read one message off the queue into a job, or end it
suspects.py      messages that SQS hands out again are tried one by one, so that one that kills its worker stops no other
suppressed.py    which recipients are left out
slots.py         when each message of a sending account may go out
outcomes.py      write down what the provider answered; a lost reply becomes `unknown`
requeueing/      what happens to a request that cannot go on now: it waits, goes back to the queue, or ends
jobs.py          the job that goes from step to step, and what sending needs of the world
timings.py       how long each step took
byte_budget.py   how many bytes are in memory at once
"""

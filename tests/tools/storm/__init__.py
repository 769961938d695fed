"""Chaos test of the stack deployed on this machine: real SendFunctions are killed at random moments, all services have network faults.

requests.py  the planned requests: several tenants, some duplicates, some cancelled again
faults.py    the fault schedule: single faults all the time, occasional outages of a whole service
workers.py   the pool of workers, which are killed at random
storm.py     the phases of a storm: produce, kill, drain
verdict.py   the outcome of each request, by SES's ledger
suppressions.py   whether addresses that bounced or complained were left out from then on

python -m tools.storm --requests 10000 --kills 1000 --seed 1

Half of the tenants have feedback, for comparison; `--with-feedback 0` for none.
"""

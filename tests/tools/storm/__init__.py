"""A storm over the real thing: the deployed stack on this machine, real SendFunctions killed at random moments, faults on every wire.

mail.py     what is asked to be sent: requests of several tenants, twice where a producer stutters, some withdrawn again
weather.py  what goes wrong on the wire: single faults all the time, and now and then a whole service
crowd.py    the workers, and who kills them
storm.py    the course of a storm: feed, kill, let it calm down, drain
verdict.py  what became of each request, by SES's own ledger

python -m tools.storm --requests 10000 --kills 1000 --seed 1

Of half of the tenants SES's events come back, so that both can be compared: `--told 0` for none.
"""

"""Requests that cannot be sent now.

deferral.py    the request waits, or ends unsent
reconcile.py   the record does not allow the attempt: another worker sends or has sent it, or it has ended
requeue.py     the next queue message, the parked body, the dead letter
"""

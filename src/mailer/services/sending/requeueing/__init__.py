"""What happens to a request that cannot go on now.

deferral.py    it waits, or ends unsent
reconcile.py   its record does not allow the attempt: another worker has it, had it, or it has ended
requeue.py     its next queue message, its parked body, its dead letter
"""

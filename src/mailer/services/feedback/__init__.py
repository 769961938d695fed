"""Record SES's events of sent mail.

    receive.py     a batch off the queue: the events of one mail in sequence, each acknowledged once all of it is written
    matching.py    the attempt that an event is about, and whether the event's account and region are the attempt's
    proving.py     the mark on the tenant's row that events arrive
    recording.py   the record proven sent, the recipients' facts, their counts on the record

Events may arrive in any order, several times and days late; the result is the same.
"""

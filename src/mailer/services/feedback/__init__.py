"""Write down what SES's events tell of the mail that was sent.

    receive.py     a batch off the queue: the events of one mail one after another, each acknowledged once all of it is written
    matching.py    which attempt of which request an event is about, and whether whoever sent it may say so
    proving.py     the mark on the tenant's row that events come at all
    recording.py   the record proven sent, the recipients' facts, their counts on the record

An event may come in any order, any number of times, days late: whatever came first, the same is written in the end.
"""

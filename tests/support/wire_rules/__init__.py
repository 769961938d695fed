"""The services' own rules for what they are sent, checked on the serialized request: emulators take much that AWS refuses.

    with watched() as breaches:          every call of every botocore client in this process
        …
    assert not breaches

model.py     what botocore's description of a call says: types, required members, lengths, ranges, patterns, enumerations
dynamodb.py  attribute values, keys, items, expressions
sqs.py       bodies, attributes, batches
others.py    S3, EventBridge, SES, KMS, STS
metrics.py   CloudWatch's embedded metric format, which no client sends
hook.py      where a request is taken off the wire, and read
"""

from support.wire_rules.hook import Breach, breaches_of, watched

__all__ = ["Breach", "breaches_of", "watched"]

"""AWS services' rules for requests, checked on the serialized request, because emulators accept much that AWS rejects.

    with watched() as breaches:          every call of every botocore client in this process
        …
    assert not breaches

model.py     botocore's model of an operation: types, required members, lengths, ranges, patterns, enumerations
dynamodb.py  attribute values, keys, items, expressions
sqs.py       bodies, attributes, batches
others.py    S3, EventBridge, SES, KMS, STS
metrics.py   CloudWatch's embedded metric format, which no client sends
hook.py      capturing and parsing requests
"""

from support.wire_rules.hook import Breach, breaches_of, watched

__all__ = ["Breach", "breaches_of", "watched"]

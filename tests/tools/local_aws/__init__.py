"""The local AWS of the demo and the tests: the real, unmodified template, deployed on this machine.

    make up ─▶ up.py ──▶ server.py   one process: the proxies, with MiniStack as its child
                 │          ├── MiniStack (AUTH=true): SQS, Lambda, API Gateway, DynamoDB, KMS, S3, IAM, STS, CloudFormation
                 │          ├── proxy.py + ses.py      in front of SES: limits, ledger of .eml files, network faults
                 │          ├── proxy.py               in front of other services, for fault injection
                 │          └── control.py             commands of the tests, records of what happened
                 ├──▶ stack.py      `sam build`, `sam deploy`, the stack's outputs
                 ├──▶ tenants.py    AWS accounts of tenants: an IAM user with `ses:SendRawEmail`, verified identities, the sandbox
                 └──▶ api.py        client of the REST API, with signed requests

All files are under `.local/`, and all ports are on 127.0.0.1. The developer's environment, credentials in particular, is not used.
"""

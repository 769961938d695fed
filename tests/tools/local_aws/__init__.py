"""The local AWS that the demo and the tests share: the real template, deployed on this machine, with nothing of it replaced.

    make up ─▶ up.py ──▶ server.py   one process: the proxies, and MiniStack as its child
                 │          ├── MiniStack (AUTH=true): SQS, Lambda, API Gateway, DynamoDB, KMS, S3, IAM, STS, CloudFormation
                 │          ├── proxy.py + ses.py      in front of SES: limits, ledger of .eml files, faults on the wire
                 │          ├── proxy.py               in front of the other services, where faults are wanted
                 │          └── control.py             takes the tests' commands, answers what happened
                 ├──▶ stack.py      `sam build`, `sam deploy`, the stack's outputs
                 ├──▶ tenants.py    AWS accounts of tenants: an IAM user with `ses:SendRawEmail`, verified identities, the sandbox
                 └──▶ api.py        the REST API with signed requests

Everything lies under `.local/` and listens on 127.0.0.1 alone. The environment of the developer (credentials above all) never gets in.
"""

"""Operators' web console: a local server that shows data from the API, CloudWatch and SQS, with the operator's own credentials.

`server` starts it and `app` wires it. `sources` call AWS, each returning a value or its trouble; `views` convert that for display and are
pure; `pages` handle the browser's requests; all pages share `web` and `safety`.
"""

"""The console: a server on this machine alone, that shows its operator what API, CloudWatch and SQS tell, with the operator's own rights.

`server` starts it, `app` puts it together. `sources` ask AWS, each answering with what it found or with why not; `views` turn that into
what is shown, and ask nobody; `pages` answer the browser; `web` and `safety` are what all pages share.
"""

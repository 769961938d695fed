"""Send a batch of requests from the queue.

send.py          the batch: read, prepare, reserve slots, compose, pass the fence, call the provider; large mails after all others
intake.py        read one queue message into a job, or end its request
suspects.py      messages that SQS delivers again are tried one by one, so that one that kills its worker stops no others
suppressed.py    which recipients are left out
slots.py         when each message of a sending account may go out
outcomes.py      record the provider's answer
requeueing/      requests that cannot be sent now: they wait, go back to the queue, or end
jobs.py          the job that passes through the steps, and their dependencies
timings.py       how long each step took
upload_loader.py loads a message's uploads, as far as there is memory for them
byte_budget.py   limits the bytes in memory

When a reply is lost
- SES's reply (read timeout, connection closed, 5xx, or the worker dies after the fence): SES may have accepted the mail, so it is not
  called again. The provider adapter returns `MaybeSent` and `record_outcome` writes `unknown`; for a worker that died `reconcile`, or
  the sweeper, writes it once the attempt's deadline has passed (`time_out`). With `onUnknown: hold`, the default, the body is parked and
  the request stays `unknown` until an operator resolves it. With `resend` it is queued again, once the worker must be dead, and marked
  `maybe_sent`: the mail may arrive twice, and from then on it ends only as `sent` or `unknown`. An event of SES that proves acceptance
  makes an `unknown` `sent`.
- The table's reply to the fence: it is not known whether the fence was passed, so SES is not called; the message goes back to the queue
  with the proof that the attempt was not sent (`requeue_with_proof`).
- The table's reply to the outcome: the message goes back to the queue with the outcome as its proof; the next worker records it.
- SQS's reply to a requeued message: SQS delivers the old message again. Its generation is below the record's then, so it is dropped.
"""

"""Isolate poison messages: try suspects alone, so that a message that kills workers is found and does not fail others.

A message that SQS delivers for the third time is a suspect: it, or another one of its batches, may have killed the earlier workers.
Suspects are tried one at a time, after all other messages. Each is marked before it is read, and the mark changes when the try is over.
A message that is delivered again with its mark unchanged has killed its worker; only such a message goes to the dead-letter queue.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from mailer.domain.delivery import WORKER_DEAD_MARGIN, NotSent
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.retries import retry_delay
from mailer.ports import Stage, Trial
from mailer.services.sending.intake import read
from mailer.services.sending.jobs import Job, Received, SendDependencies
from mailer.services.sending.requeueing.requeue import dead_letter_crashed, enqueue

SUSPECT_FROM = 3
"""Deliveries of a message, those of earlier generations included."""

REQUEUE_FROM = 5
"""From this receive on a message that was not tried alone is requeued as a new one, before SQS would dead-letter it."""

DEAD_LETTER_FROM = 4
"""From this receive on a message that was tried alone, and on which our own code fails, goes to the dead-letter queue."""

TRIAL_SPAN = timedelta(seconds=40)
"""A try is not begun with less of the function's time left, because a timeout would look like a crash."""

DIED = ErrorInfo("processing_crashed", "the worker died while it tried this request alone")
RAISED = ErrorInfo("processing_crashed", "our code failed on this request each time; the log names step and error")

SendJob = Callable[[Job], Received | None]
"""Sends one job alone; returns what SQS must redeliver."""


def is_suspect(received: Received) -> bool:
    """Return whether a message has to be tried alone."""
    return received.redeliveries + 1 >= SUSPECT_FROM


def requeue_in_time(received: Received, deps: SendDependencies) -> Received | None:
    """Requeue a suspect as a new message, if SQS would dead-letter it soon and it was not tried alone; else return it.

    This is done before the rest of the batch, which may kill the worker again.
    """
    if received.receives < REQUEUE_FROM:
        return received
    try:
        trial = deps.trials.find(received.sqs_message_id)
    except DependencyError as failure:
        deps.telemetry.failed("find trial", received.queue_message.tenant_id, failure)
        trial = None
    return received if trial else _requeue_as_new(received, deps)


def try_alone(received: Received, deps: SendDependencies, ends_at: datetime, send_job: SendJob) -> Received | None:
    """Try a suspect; return it if SQS must redeliver it."""
    now = deps.clock.now()
    if now + TRIAL_SPAN > ends_at:
        return _requeue_as_new(received, deps)
    by = deps.new_owner()
    try:
        trial = deps.trials.begin(received.sqs_message_id, by, now)
    except DependencyError as failure:
        return _requeue_after_failure(received, deps, failure)
    if trial is None:
        return _try(received, by, deps, send_job)
    if trial.stage is Stage.DONE:
        return None
    if now <= trial.at + deps.send_timeout + WORKER_DEAD_MARGIN:  # SQS has delivered it twice, and the other worker still has it
        return received
    return _give_up(received, trial.stage, DIED, deps, send_job)


def _try(received: Received, by: str, deps: SendDependencies, send_job: SendJob) -> Received | None:
    stage, unfinished = Stage.READING, read(received, deps)
    if isinstance(unfinished, Job):
        job, stage = unfinished, Stage.SENDING
        try:
            deps.trials.reach(received.sqs_message_id, Trial(stage, by, deps.clock.now()))
        except DependencyError as failure:
            return _requeue_after_failure(received, deps, failure)
        unfinished = send_job(job)
    if unfinished is None:
        _done(received, deps)
        return None
    if unfinished.raised and received.receives >= DEAD_LETTER_FROM:
        return _give_up(received, stage, RAISED, deps, send_job)
    try:
        deps.trials.clear(received.sqs_message_id)
    except DependencyError as failure:
        return _requeue_after_failure(received, deps, failure)
    return received


def _give_up(received: Received, stage: Stage, crash: ErrorInfo, deps: SendDependencies, send_job: SendJob) -> Received | None:
    """Dead-letter a message; if the crash was in reading it, it is not read again."""
    unfinished: Received | None = received
    if stage is Stage.SENDING:
        job = read(replace(received, crash=crash), deps)
        unfinished = send_job(job) if isinstance(job, Job) else job
        if unfinished is not None and not unfinished.raised:
            return received
    try:
        if unfinished is not None:
            dead_letter_crashed(received, deps, crash)
    except DependencyError as failure:
        deps.telemetry.failed("dead letter", received.queue_message.tenant_id, failure)
        return received
    _done(received, deps)
    return None


def _requeue_after_failure(received: Received, deps: SendDependencies, failure: DependencyError) -> Received | None:
    """Requeue a suspect because the table does not take its mark: without the mark a crash would not be noticed."""
    deps.telemetry.failed("mark trial", received.queue_message.tenant_id, failure)
    failures = received.queue_message.failures + 1
    received = replace(received, queue_message=replace(received.queue_message, failures=failures))
    unfinished = _requeue_as_new(received, deps, retry_delay(NotSent(failure.error), failures))
    if unfinished is not None:
        with suppress(DependencyError):
            deps.trials.clear(received.sqs_message_id)
    return unfinished


def _requeue_as_new(received: Received, deps: SendDependencies, delay: timedelta = timedelta()) -> Received | None:
    """Requeue as a new message, whose receives SQS counts from zero; it stays a suspect."""
    queue_message = replace(received.queue_message, generation=received.queue_message.generation + 1, redeliveries=received.redeliveries)
    try:
        enqueue(queue_message, deps, delay)
    except DependencyError as failure:
        deps.telemetry.failed("send anew", queue_message.tenant_id, failure)
        return received
    _done(received, deps)
    return None


def _done(received: Received, deps: SendDependencies) -> None:
    """Mark a message as done: if the worker dies before SQS deletes it, the next worker only acknowledges it."""
    with suppress(DependencyError):
        deps.trials.reach(received.sqs_message_id, Trial(Stage.DONE, "-", deps.clock.now()))

"""The queues accept what the contract allows and lose nothing."""

from datetime import timedelta
from typing import Any

from mailer.domain.retries import MAX_RECEIVES, hidden_for
from mailer.services.sending.suspects import REQUEUE_FROM, TRIAL_SPAN
from support.aws import tables

MIB = 1024 * 1024
DAYS = 24 * 60 * 60


def queue(name: str) -> dict[str, Any]:
    properties: dict[str, Any] = tables.resources("AWS::SQS::Queue")[name]["Properties"]
    return properties


def policy(queue_name: str) -> list[dict[str, Any]]:
    [found] = [
        resource["Properties"]["PolicyDocument"]["Statement"]
        for resource in tables.resources("AWS::SQS::QueuePolicy").values()
        if resource["Properties"]["Queues"] == [{"Ref": queue_name}]
    ]
    return list(found)


def test_each_queue_takes_bodies_of_one_mebibyte_and_keeps_them_fourteen_days() -> None:
    """Both on the send queue and on the dead-letter queue, for SQS's maximum retention."""
    for name in tables.resources("AWS::SQS::Queue"):
        assert queue(name)["MaximumMessageSize"] == MIB
        assert queue(name)["MessageRetentionPeriod"] == 14 * DAYS


def test_each_queue_is_encrypted() -> None:
    """Bodies contain customers' mail."""
    assert all(queue(name)["SqsManagedSseEnabled"] is True for name in tables.resources("AWS::SQS::Queue"))


def test_neighbours_of_poison_messages_are_requeued_before_the_receive_limit() -> None:
    """SQS's redelivery is only for crashes and limited; messages that share a poison message's batches are requeued before the limit."""
    assert queue("SendQueue")["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]},
        "maxReceiveCount": MAX_RECEIVES,
    }
    assert REQUEUE_FROM <= MAX_RECEIVES // 2


def test_an_outage_of_half_a_day_dead_letters_nothing() -> None:
    """Each message may be received and returned whenever it is visible."""
    ordinary = timedelta(seconds=queue("SendQueue")["VisibilityTimeout"])
    waits = [hidden_for(receives) or ordinary for receives in range(1, MAX_RECEIVES + 1)]
    assert sum(waits, timedelta()) >= timedelta(hours=12)
    assert max(waits) <= timedelta(hours=12)  # SQS's maximum visibility timeout


def test_the_timeout_leaves_time_to_try_a_suspect() -> None:
    """With less time left a suspect is requeued; with a shorter timeout it would be requeued forever."""
    timeout = tables.resources("AWS::Serverless::Function")["SendFunction"]["Properties"]["Timeout"]
    assert timeout >= TRIAL_SPAN.total_seconds() + 15


def test_only_the_send_queue_may_redrive_into_the_dead_letter_queue() -> None:
    """Its messages are from this stack only."""
    allowed = queue("DeadLetterQueue")["RedriveAllowPolicy"]
    assert allowed["redrivePermission"] == "byQueue"
    [source] = allowed["sourceQueueArns"]
    assert source["Fn::Sub"].endswith(f":{queue('SendQueue')['QueueName']['Fn::Sub']}")


def test_the_send_queue_is_a_standard_queue() -> None:
    """Message groups make a standard queue fair; a FIFO queue would block a tenant at its first delay."""
    assert "FifoQueue" not in queue("SendQueue")


def test_every_queue_requires_tls() -> None:
    """Each queue's policy denies every action without TLS."""
    for name in tables.resources("AWS::SQS::Queue"):
        denial = policy(name)[0]
        assert (denial["Effect"], denial["Principal"], denial["Action"]) == ("Deny", "*", "sqs:*")
        assert denial["Condition"]["Bool"]["aws:SecureTransport"] == "false"


def test_each_statement_of_a_queue_policy_names_one_queue() -> None:
    """SQS rejects a statement that names two."""
    for name in tables.resources("AWS::SQS::Queue"):
        for statement in policy(name):
            inner = statement.get("Fn::If", [None, statement])[1]
            assert inner["Resource"] == {"Fn::GetAtt": [name, "Arn"]}


def test_producers_may_only_send() -> None:
    """Producers are the principals of ProducerArns, if any."""
    condition, producers, otherwise = policy("SendQueue")[1]["Fn::If"]
    assert (condition, otherwise) == ("HasProducers", {"Ref": "AWS::NoValue"})
    assert (producers["Action"], producers["Principal"]) == ("sqs:SendMessage", {"AWS": {"Ref": "ProducerArns"}})

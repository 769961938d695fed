"""SES's events reach the record: from the tenant's SES, through the tenant's rule and ours."""

import json
import time
from typing import Any
from urllib.parse import parse_qs
from urllib.request import urlopen

import pytest

from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION
from tools.local_aws.tenants import Tenant

SIMULATOR = "simulator.amazonses.com"


# ── the tenant's side: the onboarding template ──────────────────────────────────────────────────────────────────────────


def client_of(aws: LocalAws, tenant: Tenant, service: Any) -> Any:
    """Return a client of the tenant's own account."""
    return aws.tenants.owner(tenant.account).client(service, endpoint_url=aws.addresses.aws)


def event_types(aws: LocalAws, tenant: Tenant, configuration_set: str) -> set[str]:
    """Return the events that the configuration set puts on the account's default bus."""
    sesv2 = client_of(aws, tenant, "sesv2")
    [destination] = sesv2.get_configuration_set_event_destinations(ConfigurationSetName=configuration_set)["EventDestinations"]
    assert destination["Enabled"]
    assert destination["EventBridgeDestination"]["EventBusArn"] == f"arn:aws:events:{REGION}:{tenant.account}:event-bus/default"
    return set(destination["MatchingEventTypes"])


@pytest.mark.parametrize("by_role", [False, True], ids=["key", "role"])
def test_the_onboarding_template_forwards_ses_s_events_to_our_queue(aws: LocalAws, by_role: bool) -> None:  # noqa: FBT001
    """For a tenant with a key or a role: configuration set, destination, rule and role, launched unchanged."""
    tenant = aws.tenant_with_feedback(by_role=by_role)
    assert len(event_types(aws, tenant, f"mail-{tenant.tenant_id}")) == 6
    [rule] = client_of(aws, tenant, "events").list_rules()["Rules"]
    [target] = client_of(aws, tenant, "events").list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"] == aws.stack.outputs["FeedbackBusArn"]
    sent, delivered = aws.control.wait_for_events(2, account=tenant.account, routed=True)
    assert (sent.kind, delivered.kind) == ("Send", "Delivery")


def test_a_tenant_may_forward_only_problems(aws: LocalAws) -> None:
    """Deliveries then stay in its account."""
    tenant = aws.tenant_with_feedback(feedback="problems")
    assert event_types(aws, tenant, f"mail-{tenant.tenant_id}") == {"SEND", "BOUNCE", "COMPLAINT", "REJECT", "DELIVERY_DELAY"}
    submit(aws, tenant, "invoice-1", f"bounce@{SIMULATOR}")
    assert aws.control.wait_for_events(1, account=tenant.account, kind="Bounce", routed=True)
    [verifying] = aws.control.events(account=tenant.account, kind="Delivery")
    assert not verifying.routed


def test_a_tenant_may_have_no_feedback(aws: LocalAws) -> None:
    """The template then creates only the role, or nothing."""
    tenant = aws.tenants.open()
    template = aws.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"]
    assert aws.tenants.launch(tenant, template, Feedback="off").keys() == {"RoleArn"}
    assert client_of(aws, tenant, "events").list_rules()["Rules"] == []


def test_a_disabled_rule_forwards_nothing(aws: LocalAws) -> None:
    """As on AWS, the events stay in the tenant's account."""
    tenant = aws.tenants.open()
    template = aws.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"]
    made = aws.tenants.launch(tenant, template, CreateRole="false")
    events = client_of(aws, tenant, "events")
    [rule] = events.list_rules()["Rules"]
    events.disable_rule(Name=rule["Name"])
    aws.api.put_provider(tenant.tenant_id, tenant.provider(configurationSet=made["ConfigurationSet"]))
    report_nothing = aws.api.verify(tenant.tenant_id).body["messageId"]
    assert len(aws.control.wait_for_events(2, message_id=report_nothing, routed=False)) == 2
    events.enable_rule(Name=rule["Name"])
    message_id = aws.api.verify(tenant.tenant_id).body["messageId"]
    assert len(aws.control.wait_for_events(2, message_id=message_id, routed=True)) == 2


def test_the_quick_create_link_creates_the_same(aws: LocalAws) -> None:
    """Its template is in our bucket, with a presigned URL; its parameters are this tenant's."""
    tenant = aws.tenants.open()
    onboarding = aws.api.onboarding(tenant.tenant_id).body
    query = parse_qs(onboarding["quickCreateLink"].partition("?region=us-east-1#/stacks/create/review?")[2])
    parameters = {name.removeprefix("param_"): value for name, [value] in query.items() if name.startswith("param_")}
    with urlopen(query["templateURL"][0]) as served:  # noqa: S310  # MiniStack does not follow presigned URLs
        made = aws.tenants.launch(tenant, served.read().decode(), **parameters)
    assert made.keys() == {"RoleArn", "ConfigurationSet"}
    role = client_of(aws, tenant, "iam").get_role(RoleName=made["RoleArn"].rpartition("/")[2])["Role"]
    assert onboarding["externalId"] in json.dumps(role["AssumeRolePolicyDocument"])


# ── one mail ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def submit(aws: LocalAws, tenant: Tenant, request_id: str, *to: str, **more: Any) -> None:
    """Submit a mail."""
    message = {"to": [{"email": address} for address in to], "subject": "Your invoice", "text": "Thank you."}
    answer = aws.api.submit(tenant.tenant_id, {"requestId": request_id, "message": message, **more})
    assert answer.status == 202, answer.body


def counts(record: dict[str, Any]) -> dict[str, int]:
    """Return the columns of a record's feedback that are not zero."""
    return {name: count for name, count in (record["feedback"] or {}).items() if count and not name.endswith("At")}


def wait_until_counted(aws: LocalAws, tenant: Tenant, request_id: str, **wanted: int) -> dict[str, Any]:
    """Wait until a record has these counts, and return it."""
    return aws.api.wait_for(tenant.tenant_id, request_id, lambda record: counts(record) == wanted)


def wait_until_drained(aws: LocalAws) -> None:
    """Wait until FeedbackFunction has received everything on its queue."""
    sqs, queue = aws.client("sqs"), aws.stack.outputs["FeedbackQueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
    deadline = time.monotonic() + 30
    while any(int(count) for count in sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"].values()):
        assert time.monotonic() < deadline, "events are left on the queue"
        time.sleep(0.1)


def by_recipient(aws: LocalAws, tenant: Tenant, request_id: str) -> dict[str, str]:
    answer = aws.api.call("GET", f"/tenants/{tenant.tenant_id}/messages/{request_id}/feedback")
    assert answer.status == 200
    return {recipient["email"]: recipient["status"] for recipient in answer.body["recipients"]}


@pytest.mark.parametrize("by_role", [False, True], ids=["key", "role"])
def test_the_outcome_of_a_mail_is_in_its_record(aws: LocalAws, by_role: bool) -> None:  # noqa: FBT001
    """Delivered, bounced, complained about: as counts in the record, by recipient in its feedback."""
    tenant = aws.tenant_with_feedback(by_role=by_role)
    to = {f"{name}@{SIMULATOR}": name for name in ("success", "bounce", "suppressionlist")} | {"jo@example.com": "success"}
    submit(aws, tenant, "invoice-1", *to)
    record = wait_until_counted(aws, tenant, "invoice-1", delivered=2, bounced=2)
    assert (record["status"], record["recipients"]) == ("sent", 4)
    became = {"success": "delivered", "bounce": "bounced", "suppressionlist": "bounced"}
    assert by_recipient(aws, tenant, "invoice-1") == {email: became[name] for email, name in to.items()}
    submit(aws, tenant, "invoice-2", f"complaint+label@{SIMULATOR}")
    wait_until_counted(aws, tenant, "invoice-2", complained=1)


def test_duplicates_in_any_order_have_the_same_result(aws: LocalAws) -> None:
    """Eight copies of each event, the last first: each recipient is counted once; an out-of-office reply does not replace a delivery."""
    tenant = aws.tenant_with_feedback()
    aws.control.inject_event_fault("reorder", account=tenant.account)
    aws.control.inject_event_fault("duplicate", account=tenant.account, copies=8)
    submit(aws, tenant, "invoice-1", f"ooto@{SIMULATOR}", f"bounce@{SIMULATOR}", "jo@example.com")
    record = wait_until_counted(aws, tenant, "invoice-1", delivered=2, bounced=1)
    wait_until_drained(aws)
    assert aws.api.status(tenant.tenant_id, "invoice-1").body == record
    assert record["feedback"]["firstAt"] <= record["feedback"]["lastAt"]


def test_a_delay_is_recorded_although_it_names_no_request(aws: LocalAws) -> None:
    """As in SES's sample it has none of the sender's tags; later the mail is delivered."""
    tenant = aws.tenant_with_feedback()
    aws.control.set_outcome("later@example.com", "delayed")
    aws.control.inject_event_fault("lose", account=tenant.account, kind="Delivery")
    submit(aws, tenant, "invoice-1", "later@example.com")
    wait_until_counted(aws, tenant, "invoice-1", delayed=1)
    assert by_recipient(aws, tenant, "invoice-1") == {"later@example.com": "delayed"}


def test_an_event_makes_an_unknown_sent(aws: LocalAws) -> None:
    """SES accepted the mail and its response was cut off: it is unknown until the first event. Nothing is sent again."""
    tenant = aws.tenant_with_feedback()
    aws.control.inject("truncate", when="after", operation="SendRawEmail", access_key=tenant.access_key, times=1)
    submit(aws, tenant, "invoice-1", "jo@example.com", onUnknown="resend")
    record = wait_until_counted(aws, tenant, "invoice-1", delivered=1)
    [mail] = [mail for mail in aws.control.mails(account=tenant.account) if mail.destinations == ["jo@example.com"]]
    assert (record["status"], record["attempts"], record["messageId"], record["error"]) == ("sent", 1, mail.message_id, None)


@pytest.mark.parametrize("how", ["a foreign account", "another tenant's tags"])
def test_an_account_cannot_report_another_s_mail(aws: LocalAws, how: str) -> None:
    """Events of an account that did not send, and events with the tags of another tenant's request, change nothing."""
    victim, other = aws.tenant_with_feedback(), aws.tenant_with_feedback()
    aws.control.inject_event_fault("lose", account=victim.account)
    submit(aws, victim, "invoice-1", "jo@example.com")
    before = aws.api.wait_for(victim.tenant_id, "invoice-1")
    own = {"tenantmail-tenant": victim.tenant_id, "tenantmail-request": "invoice-1", "tenantmail-attempt": "1"}
    if how == "a foreign account":
        fault = aws.control.inject_event_fault("foreign account", account=other.account, as_account="999900001111")
    else:
        fault = aws.control.inject_event_fault("forged tags", account=other.account, tags=own)
    submit(aws, other, "invoice-1", f"bounce@{SIMULATOR}")
    assert aws.control.wait_for_events(1, account=other.account, kind="Bounce", routed=True)
    assert aws.control.event_fault_hits(fault) >= 1
    wait_until_drained(aws)
    assert aws.api.status(victim.tenant_id, "invoice-1").body == before
    assert aws.api.status(other.tenant_id, "invoice-1").body["feedback"] is None
    assert by_recipient(aws, victim, "invoice-1") == {}

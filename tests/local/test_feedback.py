"""What became of a mail comes back: from the tenant's SES, by the tenant's rule and ours, to the record."""

import json
from typing import Any
from urllib.parse import parse_qs
from urllib.request import urlopen

import pytest

from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION
from tools.local_aws.tenants import Tenant

SIMULATOR = "simulator.amazonses.com"


# ── the tenant's side: onboarding's template ────────────────────────────────────────────────────────────────────────────


def client_of(aws: LocalAws, tenant: Tenant, service: Any) -> Any:
    """Return a client of the tenant's own account."""
    return aws.tenants.owner(tenant.account).client(service, endpoint_url=aws.addresses.aws)


def event_types(aws: LocalAws, tenant: Tenant, configuration_set: str) -> set[str]:
    """Return what the configuration set tells on the account's default bus."""
    sesv2 = client_of(aws, tenant, "sesv2")
    [destination] = sesv2.get_configuration_set_event_destinations(ConfigurationSetName=configuration_set)["EventDestinations"]
    assert destination["Enabled"]
    assert destination["EventBridgeDestination"]["EventBusArn"] == f"arn:aws:events:{REGION}:{tenant.account}:event-bus/default"
    return set(destination["MatchingEventTypes"])


@pytest.mark.parametrize("by_role", [False, True], ids=["key", "role"])
def test_the_template_of_onboarding_brings_what_ses_tells_to_our_queue(aws: LocalAws, by_role: bool) -> None:  # noqa: FBT001
    """For a tenant with a key or with a role: configuration set, destination, rule and role, launched as they come."""
    tenant = aws.tenant_with_feedback(by_role=by_role)
    assert len(event_types(aws, tenant, f"mail-{tenant.tenant_id}")) == 6
    [rule] = client_of(aws, tenant, "events").list_rules()["Rules"]
    [target] = client_of(aws, tenant, "events").list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"] == aws.stack.outputs["FeedbackBusArn"]
    sent, delivered = aws.control.wait_for_events(2, account=tenant.account, routed=True)
    assert (sent.kind, delivered.kind) == ("Send", "Delivery")


def test_a_tenant_may_be_told_of_problems_alone(aws: LocalAws) -> None:
    """Deliveries then stay in its account."""
    tenant = aws.tenant_with_feedback(feedback="problems")
    assert event_types(aws, tenant, f"mail-{tenant.tenant_id}") == {"SEND", "BOUNCE", "COMPLAINT", "REJECT", "DELIVERY_DELAY"}
    submit(aws, tenant, "invoice-1", f"bounce@{SIMULATOR}")
    assert aws.control.wait_for_events(1, account=tenant.account, kind="Bounce", routed=True)
    [verifying] = aws.control.events(account=tenant.account, kind="Delivery")
    assert not verifying.routed


def test_a_tenant_may_want_no_feedback(aws: LocalAws) -> None:
    """The template then makes the role alone, or nothing."""
    tenant = aws.tenants.open()
    template = aws.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"]
    assert aws.tenants.launch(tenant, template, Feedback="off").keys() == {"RoleArn"}
    assert client_of(aws, tenant, "events").list_rules()["Rules"] == []


def test_a_rule_that_is_switched_off_brings_nothing(aws: LocalAws) -> None:
    """As on AWS: what SES tells then stays in the tenant's account."""
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
    heard = aws.api.verify(tenant.tenant_id).body["messageId"]
    assert len(aws.control.wait_for_events(2, message_id=heard, routed=True)) == 2


def test_the_quick_create_link_makes_the_same(aws: LocalAws) -> None:
    """Its template is served from our bucket to whoever has the address; with its parameters it is this tenant's."""
    tenant = aws.tenants.open()
    onboarding = aws.api.onboarding(tenant.tenant_id).body
    query = parse_qs(onboarding["quickCreateLink"].partition("?region=us-east-1#/stacks/create/review?")[2])
    parameters = {name.removeprefix("param_"): value for name, [value] in query.items() if name.startswith("param_")}
    with urlopen(query["templateURL"][0]) as served:  # noqa: S310  # MiniStack follows no presigned address itself
        made = aws.tenants.launch(tenant, served.read().decode(), **parameters)
    assert made.keys() == {"RoleArn", "ConfigurationSet"}
    role = client_of(aws, tenant, "iam").get_role(RoleName=made["RoleArn"].rpartition("/")[2])["Role"]
    assert onboarding["externalId"] in json.dumps(role["AssumeRolePolicyDocument"])


# ── one mail ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def submit(aws: LocalAws, tenant: Tenant, request_id: str, *to: str, **more: Any) -> None:
    """Ask for a mail."""
    message = {"to": [{"email": address} for address in to], "subject": "Your invoice", "text": "Thank you."}
    answer = aws.api.submit(tenant.tenant_id, {"requestId": request_id, "message": message, **more})
    assert answer.status == 202, answer.body

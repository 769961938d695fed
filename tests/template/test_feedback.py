"""SES's events arrive on one bus, which accepts nothing else, and are forwarded to the webhook of the stack's owner."""

import json
import re
from typing import Any

import pytest

from support.aws import tables
from tools.local_aws.ses_events import DETAIL_TYPES

BUS = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/${AWS::StackName}-feedback"


def resource(name: str) -> dict[str, Any]:
    properties: dict[str, Any] = tables.template()["Resources"][name]["Properties"]
    return properties


def bus_statements() -> dict[str, dict[str, Any]]:
    """Return the statements of the bus's policy by their conditions."""
    found = {}
    for statement in resource("FeedbackBus")["Policy"]["Statement"]:
        condition, inner, otherwise = statement["Fn::If"]
        assert otherwise == {"Ref": "AWS::NoValue"}
        found[condition] = inner
    return found


# ── in: FeedbackBus ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_ses_events_may_be_put_on_the_bus() -> None:
    """Every account may put events with the source `aws.ses`, which only AWS can use, and no others."""
    for statement in bus_statements().values():
        assert (statement["Effect"], statement["Action"]) == ("Allow", "events:PutEvents")
        assert statement["Resource"]["Fn::Sub"] == BUS
        assert statement["Condition"]["StringEquals"]["events:source"] == "aws.ses"
        assert statement["Condition"]["Null"] == {"events:source": "false"}


def test_parameters_restrict_the_accounts_that_may_put_events() -> None:
    """They allow an organization, accounts, or both; without either, every account."""
    statements = bus_statements()
    assert set(statements) == {"AcceptsFeedbackOfAllAccounts", "HasFeedbackOrganization", "HasFeedbackAccounts"}
    restrictions = {
        name: {k: v for k, v in one["Condition"]["StringEquals"].items() if k != "events:source"} for name, one in statements.items()
    }
    assert restrictions == {
        "AcceptsFeedbackOfAllAccounts": {},
        "HasFeedbackOrganization": {"aws:PrincipalOrgID": {"Ref": "FeedbackOrganization"}},
        "HasFeedbackAccounts": {"aws:PrincipalAccount": {"Ref": "FeedbackAccounts"}},
    }
    named = [{"Condition": "HasFeedbackOrganization"}, {"Condition": "HasFeedbackAccounts"}]
    assert tables.template()["Conditions"]["AcceptsFeedbackOfAllAccounts"] == {"Fn::Not": [{"Fn::Or": named}]}


@pytest.mark.parametrize(
    ("parameter", "value", "fits"),
    [
        ("FeedbackOrganization", "", True),
        ("FeedbackOrganization", "o-a1b2c3d4e5", True),
        ("FeedbackOrganization", "*", False),
        ("FeedbackAccounts", "111122223333", True),
        ("FeedbackAccounts", "*", False),
        ("FeedbackAccounts", "11112222333", False),
        ("WebhookUrl", "https://hooks.example.com/mail?from=tenantmail", True),
        ("WebhookUrl", "http://hooks.example.com/mail", False),
        ("WebhookUrl", "https://hooks.example.com/*", False),
        ("WebhookSecretArn", "arn:aws:secretsmanager:eu-central-1:111122223333:secret:tenantmail/webhook-AbCdEf", True),
        ("WebhookSecretArn", "tenantmail/webhook", False),
    ],
)
def test_a_parameter_that_would_allow_too_much_is_refused(parameter: str, value: str, fits: bool) -> None:  # noqa: FBT001
    """No wildcard, no plain HTTP, no name instead of an ARN."""
    assert bool(re.fullmatch(tables.template()["Parameters"][parameter]["AllowedPattern"], value)) is fits


def test_the_longest_list_of_accounts_fits_into_the_policy() -> None:
    """A parameter has 4096 bytes, a bus's policy 10 240 characters."""
    accounts = [f"{number:012}" for number in range(310)]
    assert len(",".join(accounts)) <= 4096
    statement = json.dumps({**bus_statements()["HasFeedbackAccounts"], "Accounts": accounts})
    other = json.dumps(bus_statements()["HasFeedbackOrganization"])
    assert len(statement) + len(other) < 10_240


def test_the_rule_queues_exactly_the_event_types_that_are_read() -> None:
    """Opens and clicks, which a tenant's destination may publish too, are not queued; events that cannot be queued are kept."""
    rule = resource("FeedbackRule")
    assert rule["EventBusName"] == {"Ref": "FeedbackBus"}
    assert rule["EventPattern"] == {"source": ["aws.ses"], "detail-type": list(DETAIL_TYPES.values())}
    [target] = rule["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["FeedbackQueue", "Arn"]}
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["FeedbackDeadLetterQueue", "Arn"]}}
    assert not {"Input", "InputPath", "InputTransformer"} & set(target)  # FeedbackFunction needs the envelope


@pytest.mark.parametrize(
    ("queue", "rule"),
    [("FeedbackQueue", "FeedbackRule"), ("FeedbackDeadLetterQueue", "FeedbackRule"), ("WebhookDeadLetterQueue", "WebhookRule")],
)
def test_only_the_queue_s_own_rule_puts_events_on_it(queue: str, rule: str) -> None:
    """EventBridge is shared by all accounts: the condition on the rule's ARN restricts it to ours."""
    _, allowed = resource(f"{queue}Policy")["PolicyDocument"]["Statement"]
    assert (allowed["Principal"], allowed["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
    assert allowed["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [rule, "Arn"]}}}


def test_events_survive_a_long_outage() -> None:
    """Five hours without DynamoDB cause no dead letter."""
    queue = resource("FeedbackQueue")
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["FeedbackDeadLetterQueue", "Arn"]}
    assert queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"] >= 5 * 3600


# ── out: the webhook ────────────────────────────────────────────────────────────────────────────────────────────────────

WEBHOOK = {
    "WebhookConnection",
    "WebhookDestination",
    "WebhookRule",
    "WebhookRole",
    "WebhookDeadLetterQueue",
    "WebhookDeadLetterQueuePolicy",
}


def test_without_a_url_there_is_no_webhook() -> None:
    """None of its resources are created; a URL without a secret is rejected."""
    conditional = {name for name, one in tables.template()["Resources"].items() if one.get("Condition") == "HasWebhook"}
    assert conditional == WEBHOOK | {"WebhookDeadLettersAlarm"}
    rule = tables.template()["Rules"]["WebhookNeedsSecret"]
    assert rule["RuleCondition"] == tables.template()["Conditions"]["HasWebhook"]
    assert rule["Assertions"][0]["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "WebhookSecretArn"}, ""]}]}


def test_the_webhook_posts_every_event_with_the_secret() -> None:
    """The secret is read from Secrets Manager at deployment, and is neither in the template nor in a parameter."""
    destination, connection = resource("WebhookDestination"), resource("WebhookConnection")
    assert (destination["HttpMethod"], destination["InvocationEndpoint"]) == ("POST", {"Ref": "WebhookUrl"})
    assert destination["ConnectionArn"] == {"Fn::GetAtt": ["WebhookConnection", "Arn"]}
    key = connection["AuthParameters"]["ApiKeyAuthParameters"]
    assert (connection["AuthorizationType"], key["ApiKeyName"]) == ("API_KEY", "Authorization")
    assert key["ApiKeyValue"] == {"Fn::Sub": "{{resolve:secretsmanager:${WebhookSecretArn}}}"}
    rule = resource("WebhookRule")
    assert (rule["EventBusName"], rule["EventPattern"]) == ({"Ref": "EventBus"}, {"source": ["tenantmail"]})


def test_failed_webhook_posts_are_retried_for_a_day_and_then_dead_lettered() -> None:
    """EventBridge's maximum: 24 hours and 185 attempts."""
    [target] = resource("WebhookRule")["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["WebhookDestination", "Arn"]}
    assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["WebhookDeadLetterQueue", "Arn"]}}
    [statement] = resource("WebhookRole")["Policies"][0]["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("events:InvokeApiDestination", {"Fn::GetAtt": ["WebhookDestination", "Arn"]})

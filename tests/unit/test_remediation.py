"""What a tenant is told to do: exact, ready to paste, and true to its config."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import pytest

from mailer.domain import remediation
from mailer.domain.errors import CODES, ErrorClass, ErrorInfo
from mailer.domain.onboarding import (
    Platform,
    console_page,
    iam_policy,
    large_statement,
    onboarding_parameters,
    onboarding_template,
    quick_create_link,
    send_statement,
    trust_policy,
)
from mailer.domain.provider import ProviderStatus, StoredConfig
from mailer.domain.regions import partition_of
from mailer.domain.remediation import Disclosed, add_remediation, provider_with_remediation, with_remediation
from support import tenants
from support.fakes.ports import OUR_BUS, OUR_ROLES, PLATFORM, a_config, a_provider

ROLE = tenants.role()
IS_ROLE = {"type": "role"}
OWN_ACCOUNT_FAULTS = {code for code, row in CODES.items() if row.error_class is ErrorClass.TENANT} - {
    "config_unreadable",  # ours to mend
    "reputation_at_risk",  # an operator's to resume
    "provider_not_configured",
    "provider_not_active",
}


def hint(code: str, disclosed: Disclosed | None = None, **config: Any) -> str:
    return add_remediation(ErrorInfo(code, "no"), a_config(**config), disclosed).hint


def pasted(text: str) -> Any:
    """The JSON in a hint."""
    return json.loads(text[text.index("{") :])


def test_every_fault_of_a_tenants_account_has_advice_of_its_own() -> None:
    """A new code of that kind fails here until somebody says what the tenant must do."""
    assert set(remediation._REMEDIATIONS) >= OWN_ACCOUNT_FAULTS


@pytest.mark.parametrize("code", sorted(OWN_ACCOUNT_FAULTS))
def test_advice_says_who_and_names_what_is_theirs(code: str) -> None:
    """Each begins with who must act, and is more exact than the code's own hint."""
    disclosed, credentials = (Disclosed(ROLE, PLATFORM), IS_ROLE) if code == "role_not_assumable" else (None, a_config().credentials)
    remediation = hint(code, disclosed, configuration_set="news", credentials=credentials)
    assert remediation.startswith("Tenant: ")
    assert remediation != CODES[code].hint


@pytest.mark.parametrize(
    ("config", "resources"),
    [
        ({}, ["identity/hello@acme.example", "identity/acme.example"]),
        ({"configuration_set": "news"}, ["identity/hello@acme.example", "identity/acme.example", "configuration-set/news"]),
        ({"from_address": "hello@bücher.example"}, ["identity/hello@xn--bcher-kva.example", "identity/xn--bcher-kva.example"]),
    ],
)
def test_denied_gives_the_statement_to_attach(config: dict[str, Any], resources: list[str]) -> None:
    """Action and resources are exactly those that SES asks for; the account is named once it is known."""
    statement = pasted(hint("credentials_denied", **config))
    assert (statement["Effect"], statement["Action"]) == ("Allow", "ses:SendRawEmail")
    assert statement["Resource"] == [f"arn:aws:ses:eu-west-1:*:{name}" for name in resources]
    known = pasted(hint("credentials_denied", **config, account="222222222222"))
    assert known["Resource"] == [f"arn:aws:ses:eu-west-1:222222222222:{name}" for name in resources]


def test_denied_names_the_holder() -> None:
    """The role by its ARN, the user by the end of its key."""
    assert ROLE.role_arn in hint("credentials_denied", Disclosed(ROLE, PLATFORM), credentials=IS_ROLE)
    assert "…WXYZ" in hint("credentials_denied")


@pytest.mark.parametrize("code", sorted(OWN_ACCOUNT_FAULTS))
def test_what_goes_to_records_and_logs_names_no_role(code: str) -> None:
    """Undisclosed, a role stays unnamed, and so does its ExternalId; who must do what is said all the same."""
    remediation = hint(code, configuration_set="news", credentials=IS_ROLE, account="222222222222")
    assert remediation.startswith("Tenant: ")
    for closed in (ROLE.role_arn, "role/mail/sender", ROLE.external_id, "sts:ExternalId"):
        assert closed not in remediation


def test_not_assumable_gives_the_trust_policy_to_paste() -> None:
    """It is the one that onboarding gives."""
    remediation = hint("role_not_assumable", Disclosed(ROLE, PLATFORM), credentials=IS_ROLE)
    assert ROLE.role_arn in remediation
    assert pasted(remediation) == trust_policy(PLATFORM, ROLE.external_id)


def test_not_verified_names_identity_region_and_page() -> None:
    """The region is that of the config: an identity that is verified elsewhere is the usual mistake."""
    remediation = hint("from_address_not_verified", region="ap-southeast-2")
    for part in ("hello@acme.example", "acme.example", "ap-southeast-2", console_page("ap-southeast-2", "identities")):
        assert part in remediation


def test_advice_that_is_there_is_kept() -> None:
    """Who saw SES's own answer knows better."""
    error = ErrorInfo("credentials_denied", "no", "Tenant: enable the region.")
    assert add_remediation(error, a_config()) is error


@pytest.mark.parametrize("code", ["throttled", "config_unreadable", "unclassified", "dependency_unavailable"])
def test_what_is_no_fault_of_the_account_keeps_the_codes_hint(code: str) -> None:
    """There is nothing in the tenant's account to mend."""
    assert hint(code) == CODES[code].hint


def test_smtp_is_not_told_about_ses() -> None:
    """A development sink has no console."""
    error = ErrorInfo("credentials_invalid", "no")
    assert add_remediation(error, a_config(provider="smtp", region="")) is error


def test_a_suspended_record_is_told_with_advice() -> None:
    """And one that is not stays as it is."""
    row = a_provider(status=ProviderStatus.SUSPENDED, error=ErrorInfo("credentials_denied", "no"))
    shown = provider_with_remediation(row)
    assert shown.error is not None
    assert shown.error.hint == hint("credentials_denied")
    assert provider_with_remediation(replace(row, error=None)).error is None


# -- onboarding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "partition", "host"),
    [
        ("eu-west-1", "aws", "eu-west-1.console.aws.amazon.com"),
        ("cn-north-1", "aws-cn", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "aws-us-gov", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_partitions_have_their_own_names(region: str, partition: str, host: str) -> None:
    """ARNs and console pages of China and GovCloud differ."""
    assert partition_of(region) == partition
    assert console_page(region, "account") == f"https://{host}/ses/home?region={region}#/account"


def test_our_account_is_read_from_the_keys_arn() -> None:
    """No setting of its own to get wrong."""
    platform = Platform.of("Leadmetrics", "arn:aws-cn:kms:cn-north-1:333333333333:key/1234", OUR_ROLES, OUR_BUS)
    assert (platform.partition, platform.region, platform.account, platform.roles) == ("aws-cn", "cn-north-1", "333333333333", OUR_ROLES)
    assert platform.feedback_bus == OUR_BUS


def test_trust_policy_lets_our_two_functions_in_with_the_external_id_only() -> None:
    """The principal is the account, so that roles that are created again still match; the condition names the roles."""
    assert trust_policy(PLATFORM, "external-id")["Statement"] == [
        {
            "Sid": "OnlyOurFunctionsWithOurExternalId",
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"sts:ExternalId": "external-id"},
                "ArnEquals": {"aws:PrincipalArn": list(OUR_ROLES)},
            },
        }
    ]


def test_iam_policy_is_the_least_that_sending_takes() -> None:
    """One action; before a config is known on any identity, then on the tenant's own."""
    [any_identity] = iam_policy(None)["Statement"]
    [own_identity] = iam_policy(a_config(account="222222222222"))["Statement"]
    assert any_identity["Action"] == own_identity["Action"] == "ses:SendRawEmail"
    assert any_identity["Resource"] == ["*"]
    assert own_identity["Resource"] == [
        "arn:aws:ses:eu-west-1:222222222222:identity/hello@acme.example",
        "arn:aws:ses:eu-west-1:222222222222:identity/acme.example",
    ]


BY_ROLE = a_config(account="222222222222", configuration_set="news", credentials={"type": "role"})


def template_for(config: StoredConfig | None = None, tenant_id: str = "acme") -> dict[str, Any]:
    """Return what a tenant gets."""
    text = onboarding_template(PLATFORM, onboarding_parameters(tenant_id, "external-id", config), config)
    template: dict[str, Any] = json.loads(text)
    return template


def defaults(config: StoredConfig | None = None, tenant_id: str = "acme") -> dict[str, str]:
    return {name: parameter.get("Default") for name, parameter in template_for(config, tenant_id)["Parameters"].items()}


def test_the_template_makes_a_role_of_both_policies() -> None:
    """Trust and permissions are those shown; what is not needed for sending is left to the tenant's choice, and off."""
    template = template_for()
    role = template["Resources"]["SendingRole"]["Properties"]
    assert role["AssumeRolePolicyDocument"] == trust_policy(PLATFORM, {"Ref": "ExternalId"})
    sends, sends_large, sees, lifts = role["Policies"][0]["PolicyDocument"]["Statement"]
    assert sends == {**iam_policy(None)["Statement"][0], "Resource": {"Ref": "SendAs"}}
    assert (sends_large["Action"], sends_large["Resource"]) == (["ses:SendEmail"], {"Ref": "SendAs"})
    assert sees["Fn::If"][0] == "SeesQuota"
    assert lifts["Fn::If"][0] == "LiftsSuppressions"
    optional = ("LetSeeQuota", "LetLiftSuppressions")
    assert [defaults()[name] for name in optional] == ["false", "false"]
    assert defaults()["ExternalId"] == "external-id"


def test_a_large_mail_that_is_denied_gets_the_statement_for_large_mails() -> None:
    """The right that AWS named, on the config's own resources, for the identity that needs it; smaller mail goes on without it."""
    denied = ErrorInfo("credentials_denied", "AWS denied it", rights=("ses:SendEmail",))
    hint = with_remediation(denied, a_provider(active=BY_ROLE)).hint
    statement = json.loads(hint[hint.index("{") :])
    assert statement == large_statement(BY_ROLE)
    assert statement["Resource"] == send_statement(BY_ROLE)["Resource"]
    assert "the role of the config" in hint
    assert "10485760" in hint


def test_a_missing_configuration_set_of_a_config_without_one_has_no_name() -> None:
    """SES v2 says no more than that something was not found."""
    error = ErrorInfo("configuration_set_missing", "no such set")
    assert add_remediation(error, a_config()) == error


def test_the_template_names_the_narrower_resources() -> None:
    """Once a config is stored, its own identities stand ready to be copied."""
    [statement] = iam_policy(BY_ROLE)["Statement"]
    assert template_for(BY_ROLE)["Parameters"]["SendAs"]["Description"].endswith(",".join(statement["Resource"]))


def test_who_gave_a_key_is_made_no_role() -> None:
    """The rest of the template is for both."""
    assert [defaults(config)["CreateRole"] for config in (None, BY_ROLE, a_config())] == ["true", "true", "false"]
    template = template_for()
    assert [name for name, part in template["Resources"].items() if part["Condition"] == "MakesRole"] == ["SendingRole"]
    assert template["Outputs"]["RoleArn"]["Condition"] == "MakesRole"


def test_the_rule_brings_the_events_of_that_configuration_set_to_our_bus() -> None:
    """By a role that may put events there and can do nothing else."""
    parts = template_for()["Resources"]
    rule, role = parts["FeedbackRule"]["Properties"], parts["FeedbackRole"]["Properties"]
    own = {"Fn::If": ["IsNewSet", {"Ref": "ConfigurationSetName"}, {"Ref": "ExistingConfigurationSet"}]}
    assert rule["EventPattern"] == {"source": ["aws.ses"], "detail": {"mail": {"tags": {"ses:configuration-set": [own]}}}}
    [target] = rule["Targets"]
    assert (target["Arn"], target["RoleArn"]) == (OUR_BUS, {"Fn::GetAtt": ["FeedbackRole", "Arn"]})
    [statement] = role["Policies"][0]["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("events:PutEvents", OUR_BUS)
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "events.amazonaws.com"}


def test_the_tenant_chooses_what_we_hear() -> None:
    """Everything, all but deliveries, or nothing. Acceptance is told in any case, or lost events would look like none."""
    destination = template_for()["Resources"]["EventDestination"]["Properties"]["EventDestination"]
    condition, everything, problems = destination["MatchingEventTypes"]["Fn::If"]
    assert condition == "HasDeliveries"
    assert set(everything) == {"send", "delivery", "bounce", "complaint", "reject", "deliveryDelay"}
    assert set(everything) - set(problems) == {"delivery"}
    parameter = template_for()["Parameters"]["Feedback"]
    assert (parameter["AllowedValues"], parameter["Default"]) == (["all", "problems", "off"], "all")
    heard = {name for name, part in template_for()["Resources"].items() if part["Condition"] in ("HasFeedback", "MakesSet")}
    assert heard == {"ConfigurationSet", "EventDestination", "FeedbackRule", "FeedbackRole"}


def test_a_configuration_set_that_a_tenant_has_is_used() -> None:
    """Its own set is not created again. One that this template has made is not treated as foreign: the next update would delete it."""
    assert defaults(a_config(configuration_set="news"))["ExistingConfigurationSet"] == "news"
    assert defaults(a_config(configuration_set="mail-acme"))["ExistingConfigurationSet"] == ""
    assert defaults()["ConfigurationSetName"] == "mail-acme"


def test_the_name_of_a_configuration_set_is_one_that_ses_takes() -> None:
    """The longest id of a tenant is as long as the longest name."""
    name = defaults(tenant_id="t" * 64)["ConfigurationSetName"]
    assert len(name) == 64
    assert onboarding_parameters("t" * 64, "external-id", a_config(configuration_set=name))["ExistingConfigurationSet"] == ""


def test_the_template_for_all_knows_no_tenant() -> None:
    """It lies in a bucket; what is a tenant's own comes by the link's parameters."""
    template = json.loads(onboarding_template(PLATFORM, {}))
    assert {name for name, one in template["Parameters"].items() if "Default" not in one} == {"ExternalId", "ConfigurationSetName"}
    assert template["Resources"] == template_for()["Resources"]


def test_the_link_fills_in_template_and_parameters() -> None:
    """CloudFormation's page in the region that the tenant sends from, with a name for the stack."""
    parameters = onboarding_parameters("my_shop", "external-id", None)
    link = quick_create_link("eu-west-1", "https://bucket.example/1.json?X-Amz-Signature=a%2Fb&c", parameters)
    page, _, query = link.partition("?region=eu-west-1#/stacks/create/review?")
    assert page == "https://eu-west-1.console.aws.amazon.com/cloudformation/home"
    assert parse_qs(query) == {
        "templateURL": ["https://bucket.example/1.json?X-Amz-Signature=a%2Fb&c"],
        "stackName": ["mail-my-shop"],
        "param_ExternalId": ["external-id"],
        "param_CreateRole": ["true"],
        "param_ConfigurationSetName": ["mail-my_shop"],
    }

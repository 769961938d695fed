"""Remediations for tenants: exact, ready to paste, and specific to the config."""

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
TENANT_CODES = {code for code, row in CODES.items() if row.error_class is ErrorClass.TENANT} - {
    "config_unreadable",  # an operator's to fix
    "reputation_at_risk",  # an operator's to resume
    "provider_not_configured",
    "provider_not_active",
}


def hint(code: str, disclosed: Disclosed | None = None, **config: Any) -> str:
    return add_remediation(ErrorInfo(code, "no"), a_config(**config), disclosed).hint


def json_in(text: str) -> Any:
    """Return the JSON of a hint."""
    return json.loads(text[text.index("{") :])


def test_every_tenant_code_has_a_remediation() -> None:
    """A new tenant code fails here until it has one."""
    assert set(remediation._REMEDIATIONS) >= TENANT_CODES


@pytest.mark.parametrize("code", sorted(TENANT_CODES))
def test_a_remediation_is_more_specific_than_the_code_s_hint(code: str) -> None:
    """Each begins with who must act."""
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
def test_the_remediation_of_denied_has_the_statement_to_attach(config: dict[str, Any], resources: list[str]) -> None:
    """Action and resources are exactly those that SES requires; the account is included if it is known."""
    statement = json_in(hint("credentials_denied", **config))
    assert (statement["Effect"], statement["Action"]) == ("Allow", "ses:SendRawEmail")
    assert statement["Resource"] == [f"arn:aws:ses:eu-west-1:*:{name}" for name in resources]
    with_account = json_in(hint("credentials_denied", **config, account="222222222222"))
    assert with_account["Resource"] == [f"arn:aws:ses:eu-west-1:222222222222:{name}" for name in resources]


def test_the_remediation_of_denied_names_the_identity() -> None:
    """A role is named by its ARN, a user by the end of its key."""
    assert ROLE.role_arn in hint("credentials_denied", Disclosed(ROLE, PLATFORM), credentials=IS_ROLE)
    assert "…WXYZ" in hint("credentials_denied")


@pytest.mark.parametrize("code", sorted(TENANT_CODES))
def test_remediations_in_records_and_logs_name_no_role(code: str) -> None:
    """Undisclosed, they contain neither the role nor its ExternalId, but still who must do what."""
    remediation = hint(code, configuration_set="news", credentials=IS_ROLE, account="222222222222")
    assert remediation.startswith("Tenant: ")
    for secret in (ROLE.role_arn, "role/mail/sender", ROLE.external_id, "sts:ExternalId"):
        assert secret not in remediation


def test_the_remediation_of_not_assumable_has_the_trust_policy() -> None:
    """It is the same as that of onboarding."""
    remediation = hint("role_not_assumable", Disclosed(ROLE, PLATFORM), credentials=IS_ROLE)
    assert ROLE.role_arn in remediation
    assert json_in(remediation) == trust_policy(PLATFORM, ROLE.external_id)


def test_the_remediation_of_not_verified_has_identity_region_and_page() -> None:
    """The region is that of the config: verifying the identity in another region is the usual mistake."""
    remediation = hint("from_address_not_verified", region="ap-southeast-2")
    for part in ("hello@acme.example", "acme.example", "ap-southeast-2", console_page("ap-southeast-2", "identities")):
        assert part in remediation


def test_the_remediation_of_invalid_fits_the_credentials() -> None:
    """A user has another key made; a role has none, and AWS refuses its session in a region that the account has not enabled."""
    assert "Make a new key" in hint("credentials_invalid")
    of_role = hint("credentials_invalid", credentials=IS_ROLE, region="ap-east-1")
    assert "Enable that region" in of_role
    assert "ap-east-1" in of_role
    assert "key" not in of_role


def test_an_existing_remediation_is_kept() -> None:
    """It is based on SES's own response."""
    error = ErrorInfo("credentials_denied", "no", "Tenant: enable the region.")
    assert add_remediation(error, a_config()) is error


@pytest.mark.parametrize("code", ["throttled", "config_unreadable", "unclassified", "dependency_unavailable"])
def test_other_codes_keep_their_hint(code: str) -> None:
    """The tenant has nothing to fix in its account."""
    assert hint(code) == CODES[code].hint


@pytest.mark.parametrize(
    ("code", "config"),
    [
        ("credentials_denied", {"credentials": {"type": "oidc"}}),
        ("from_address_not_verified", {"from_address": "jö@acme.example"}),
        ("mail_from_not_verified", {"from_address": "jö@acme.example"}),
    ],
)
def test_an_error_of_a_config_of_a_later_version_keeps_its_hint(code: str, config: dict[str, Any]) -> None:
    """An exception would stop the batch, or the list of tenants, that the row is part of."""
    assert hint(code, **config) == CODES[code].hint


def test_smtp_errors_have_no_ses_remediation() -> None:
    """A development sink has no console."""
    error = ErrorInfo("credentials_invalid", "no")
    assert add_remediation(error, a_config(provider="smtp", region="")) is error


def test_a_suspended_provider_is_shown_with_a_remediation() -> None:
    """One that is not suspended does not change."""
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
def test_partitions_have_their_own_hosts(region: str, partition: str, host: str) -> None:
    """ARNs and console pages of China and GovCloud differ."""
    assert partition_of(region) == partition
    assert console_page(region, "account") == f"https://{host}/ses/home?region={region}#/account"


def test_our_account_is_read_from_the_key_s_arn() -> None:
    """So there is no setting that could be wrong."""
    platform = Platform.of("Leadmetrics", "arn:aws-cn:kms:cn-north-1:333333333333:key/1234", OUR_ROLES, OUR_BUS)
    assert (platform.partition, platform.region, platform.account, platform.roles) == ("aws-cn", "cn-north-1", "333333333333", OUR_ROLES)
    assert platform.feedback_bus == OUR_BUS


def test_the_trust_policy_allows_only_our_two_roles_with_the_external_id() -> None:
    """The principal is the account, so recreated roles still match; the condition names the roles."""
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


def test_the_iam_policy_has_only_the_right_to_send() -> None:
    """It has one action: before a config is stored on any identity, then on the tenant's own."""
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
    """Return the template that a tenant gets."""
    text = onboarding_template(PLATFORM, onboarding_parameters(tenant_id, "external-id", config), config)
    template: dict[str, Any] = json.loads(text)
    return template


def defaults(config: StoredConfig | None = None, tenant_id: str = "acme") -> dict[str, str]:
    return {name: parameter.get("Default") for name, parameter in template_for(config, tenant_id)["Parameters"].items()}


def test_the_template_creates_a_role_with_both_policies() -> None:
    """Rights that sending does not need are optional and off by default."""
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


def test_a_denied_large_mail_has_the_statement_for_large_mails() -> None:
    """It has the denied right, on the config's own resources, and says that smaller mail does not need it."""
    denied = ErrorInfo("credentials_denied", "AWS denied it", rights=("ses:SendEmail",))
    hint = with_remediation(denied, a_provider(active=BY_ROLE)).hint
    statement = json.loads(hint[hint.index("{") :])
    assert statement == large_statement(BY_ROLE)
    assert statement["Resource"] == send_statement(BY_ROLE)["Resource"]
    assert "the role of the config" in hint
    assert "10485760" in hint


def test_a_missing_configuration_set_of_a_config_without_one_has_no_name() -> None:
    """SES v2 says only that something was not found."""
    error = ErrorInfo("configuration_set_missing", "no such set")
    assert add_remediation(error, a_config()) == error


def test_the_template_names_the_narrower_resources() -> None:
    """With a stored config its identities can be copied from the description."""
    [statement] = iam_policy(BY_ROLE)["Statement"]
    assert template_for(BY_ROLE)["Parameters"]["SendAs"]["Description"].endswith(",".join(statement["Resource"]))


def test_with_an_access_key_no_role_is_created() -> None:
    """The rest of the template is the same."""
    assert [defaults(config)["CreateRole"] for config in (None, BY_ROLE, a_config())] == ["true", "true", "false"]
    template = template_for()
    assert [name for name, part in template["Resources"].items() if part["Condition"] == "MakesRole"] == ["SendingRole"]
    assert template["Outputs"]["RoleArn"]["Condition"] == "MakesRole"


def test_the_rule_forwards_the_configuration_set_s_events_to_our_bus() -> None:
    """Its role may only put events there."""
    parts = template_for()["Resources"]
    rule, role = parts["FeedbackRule"]["Properties"], parts["FeedbackRole"]["Properties"]
    own = {"Fn::If": ["IsNewSet", {"Ref": "ConfigurationSetName"}, {"Ref": "ExistingConfigurationSet"}]}
    assert rule["EventPattern"] == {"source": ["aws.ses"], "detail": {"mail": {"tags": {"ses:configuration-set": [own]}}}}
    [target] = rule["Targets"]
    assert (target["Arn"], target["RoleArn"]) == (OUR_BUS, {"Fn::GetAtt": ["FeedbackRole", "Arn"]})
    [statement] = role["Policies"][0]["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("events:PutEvents", OUR_BUS)
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "events.amazonaws.com"}


def test_the_tenant_chooses_the_events() -> None:
    """All, all but deliveries, or none. Send events are always included, because otherwise lost events could not be noticed."""
    destination = template_for()["Resources"]["EventDestination"]["Properties"]["EventDestination"]
    condition, all_types, without_deliveries = destination["MatchingEventTypes"]["Fn::If"]
    assert condition == "HasDeliveries"
    assert set(all_types) == {"send", "delivery", "bounce", "complaint", "reject", "deliveryDelay"}
    assert set(all_types) - set(without_deliveries) == {"delivery"}
    parameter = template_for()["Parameters"]["Feedback"]
    assert (parameter["AllowedValues"], parameter["Default"]) == (["all", "problems", "off"], "all")
    for_feedback = {name for name, part in template_for()["Resources"].items() if part["Condition"] in ("HasFeedback", "MakesSet")}
    assert for_feedback == {"ConfigurationSet", "EventDestination", "FeedbackRule", "FeedbackRole"}


def test_an_existing_configuration_set_is_used() -> None:
    """It is not created again. One that this template created does not count as existing: the next update would delete it."""
    assert defaults(a_config(configuration_set="news"))["ExistingConfigurationSet"] == "news"
    assert defaults(a_config(configuration_set="mail-acme"))["ExistingConfigurationSet"] == ""
    assert defaults()["ConfigurationSetName"] == "mail-acme"


def test_the_name_of_the_configuration_set_is_valid_for_ses() -> None:
    """The longest tenant id gives a name of the maximum length."""
    name = defaults(tenant_id="t" * 64)["ConfigurationSetName"]
    assert len(name) == 64
    assert onboarding_parameters("t" * 64, "external-id", a_config(configuration_set=name))["ExistingConfigurationSet"] == ""


def test_the_shared_template_has_no_tenant_data() -> None:
    """It is in a bucket; the tenant's data are the link's parameters."""
    template = json.loads(onboarding_template(PLATFORM, {}))
    assert {name for name, one in template["Parameters"].items() if "Default" not in one} == {"ExternalId", "ConfigurationSetName"}
    assert template["Resources"] == template_for()["Resources"]


def test_the_link_has_template_and_parameters() -> None:
    """It opens CloudFormation's page in the tenant's region, with a name for the stack."""
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

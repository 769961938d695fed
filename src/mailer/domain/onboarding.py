"""Write what a tenant sets up in its own AWS account: policies to paste, the CloudFormation template, links to console pages."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mailer.domain.addresses import ascii_address
from mailer.domain.provider import StoredConfig
from mailer.domain.regions import partition_of

PolicyDocument = Mapping[str, Any]

_CONSOLES = {"aws": "console.aws.amazon.com", "aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


@dataclass(frozen=True, slots=True)
class Platform:
    """This service as a tenant's trust policy names it."""

    name: str
    partition: str
    account: str
    roles: tuple[str, ...] = ()
    """The ARNs of the functions' roles that act as tenants."""
    feedback_bus: str = ""
    """The ARN of the event bus to which tenants' rules send SES's events."""
    region: str = ""

    @classmethod
    def of(cls, name: str, arn: str, roles: Iterable[str] = (), feedback_bus: str = "") -> "Platform":
        """Read partition, region and account from the ARN of one of our own resources."""
        _, partition, _, region, account, *_ = arn.split(":")
        return cls(name, partition, account, tuple(roles), feedback_bus, region)


def console_page(region: str, page: str, service: str = "ses") -> str:
    """Return the address of a page of a service's console in a region, SES's by default."""
    host = _CONSOLES.get(partition_of(region), _CONSOLES["aws"])
    return f"https://{region}.{host}/{service}/home?region={region}#/{page}"


def trust_policy(platform: Platform, external_id: str | PolicyDocument) -> PolicyDocument:
    """Return the trust policy of a tenant's role: it admits our two sending functions, and only with this tenant's ExternalId.

    The principal is the account, with a condition on the ARNs: IAM would store a role named as principal by its unique id, and a role that
    is created again has another id.
    """
    return _policy(
        {
            "Sid": "OnlyOurFunctionsWithOurExternalId",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:{platform.partition}:iam::{platform.account}:root"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"sts:ExternalId": external_id},
                "ArnEquals": {"aws:PrincipalArn": list(platform.roles)},
            },
        }
    )


def send_statement(config: StoredConfig | None) -> PolicyDocument:
    """Return the IAM statement that sending needs, as narrow as the known config allows."""
    return {"Sid": "SendRawEmail", "Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": _resources(config)}


def large_statement(config: StoredConfig | None, rights: Sequence[str] = ("ses:SendEmail",)) -> PolicyDocument:
    """Return the statement that large mails may take beside it: SES goes by ses:SendRawEmail for them too, as far as is known."""
    return {"Sid": "SendLargeMail", "Effect": "Allow", "Action": list(rights), "Resource": _resources(config)}


def ask_statement() -> PolicyDocument:
    """Return the optional statement that lets us read the sandbox state, the rate and the quota."""
    return {"Sid": "SeeSandboxAndQuota", "Effect": "Allow", "Action": ["ses:GetAccount", "ses:GetSendQuota"], "Resource": "*"}


def lift_statement() -> PolicyDocument:
    """Return the optional statement that lets us remove addresses from the account's own suppression list."""
    actions = ["ses:GetSuppressedDestination", "ses:DeleteSuppressedDestination"]
    return {"Sid": "LiftSuppressions", "Effect": "Allow", "Action": actions, "Resource": "*"}


def iam_policy(config: StoredConfig | None) -> PolicyDocument:
    """Return the minimum policy with which a user or role can send."""
    return _policy(send_statement(config))


def _resources(config: StoredConfig | None) -> list[str]:
    """Return the resources on which SES checks the right; `*` without a config."""
    if config is None or config.provider != "ses":
        return ["*"]
    place = f"arn:{partition_of(config.region)}:ses:{config.region}:{config.account or '*'}"
    address = ascii_address(config.from_address)
    # SES asks for the identity that it verifies the sender by: the address if that is one, else its domain.
    names = [f"identity/{address}", f"identity/{address.rpartition('@')[2]}"]
    if config.configuration_set:
        names.append(f"configuration-set/{config.configuration_set}")
    return [f"{place}:{name}" for name in names]


def _policy(*statements: PolicyDocument) -> PolicyDocument:
    return {"Version": "2012-10-17", "Statement": list(statements)}


# ── the template ────────────────────────────────────────────────────────────────────────────────────────────────────────

_NONE = {"Ref": "AWS::NoValue"}

_PROBLEMS = ["send", "bounce", "complaint", "reject", "deliveryDelay"]
"""The kinds of event with `Feedback=problems`. They include `send`, which proves that SES accepted a mail, and that events arrive."""


def onboarding_parameters(tenant_id: str, external_id: str, config: StoredConfig | None) -> Mapping[str, str]:
    """Return the parameters of the template that differ from tenant to tenant, as this one needs them."""
    own = f"mail-{tenant_id}"[:64]
    named = config.configuration_set if config else None
    return {
        "ExternalId": external_id,
        "CreateRole": "false" if config and config.credentials["type"] == "accessKey" else "true",
        "ConfigurationSetName": own,
        # Not the set that this template has made, once it is in the config: an update of the stack would delete it.
        "ExistingConfigurationSet": named if named and named != own else "",
    }


def onboarding_template(platform: Platform, defaults: Mapping[str, str], config: StoredConfig | None = None) -> str:
    """Return a CloudFormation template, as JSON, for the tenant's account: role, configuration set, and the rule that forwards its events.

    `defaults` are those of `onboarding_parameters`; without them the template is the same for every tenant, and asks for them.
    """
    parts = {**_sending(platform), **_feedback(platform)}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Lets {platform.name}, and nobody else, send mail through this account's Amazon SES and receive its events.",
        "Parameters": {name: {**text, **_default(name, defaults)} for name, text in _parameters(config).items()},
        "Conditions": _CONDITIONS,
        "Resources": parts,
        "Outputs": _OUTPUTS,
    }
    return json.dumps(template, indent=2, ensure_ascii=False)


def quick_create_link(region: str, template_url: str, parameters: Mapping[str, str]) -> str:
    """Return the link to CloudFormation's quick-create page, with template and parameters filled in."""
    given = {f"param_{name}": value for name, value in parameters.items() if value}
    query = urlencode({"templateURL": template_url, "stackName": parameters["ConfigurationSetName"].replace("_", "-"), **given})
    return console_page(region, f"stacks/create/review?{query}", "cloudformation")


def _default(name: str, defaults: Mapping[str, str]) -> Mapping[str, str]:
    return {"Default": defaults[name]} if name in defaults else {}


_CONDITIONS = {
    "MakesRole": {"Fn::Equals": [{"Ref": "CreateRole"}, "true"]},
    "IsNamed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "RoleName"}, ""]}]},
    "SeesQuota": {"Fn::Equals": [{"Ref": "LetSeeQuota"}, "true"]},
    "LiftsSuppressions": {"Fn::Equals": [{"Ref": "LetLiftSuppressions"}, "true"]},
    "HasFeedback": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Feedback"}, "off"]}]},
    "HasDeliveries": {"Fn::Equals": [{"Ref": "Feedback"}, "all"]},
    "IsNewSet": {"Fn::Equals": [{"Ref": "ExistingConfigurationSet"}, ""]},
    "MakesSet": {"Fn::And": [{"Condition": "HasFeedback"}, {"Condition": "IsNewSet"}]},
}

_SET = {"Fn::If": ["IsNewSet", {"Ref": "ConfigurationSetName"}, {"Ref": "ExistingConfigurationSet"}]}
"""The name of the configuration set, new or existing."""

_OUTPUTS = {
    "RoleArn": {
        "Condition": "MakesRole",
        "Description": "The roleArn to store as provider config.",
        "Value": {"Fn::GetAtt": ["SendingRole", "Arn"]},
    },
    "ConfigurationSet": {
        "Condition": "HasFeedback",
        "Description": "The configurationSet to store as provider config.",
        "Value": _SET,
    },
}


def _sending(platform: Platform) -> PolicyDocument:
    """Return the role that lets us send."""
    sending = [{**statement, "Resource": {"Ref": "SendAs"}} for statement in (send_statement(None), large_statement(None))]
    seeing = {"Fn::If": ["SeesQuota", ask_statement(), _NONE]}
    lifting = {"Fn::If": ["LiftsSuppressions", lift_statement(), _NONE]}
    role = {
        "Description": f"Lets {platform.name} send mail through this account's Amazon SES.",
        "RoleName": {"Fn::If": ["IsNamed", {"Ref": "RoleName"}, _NONE]},
        "AssumeRolePolicyDocument": trust_policy(platform, {"Ref": "ExternalId"}),
        "Policies": [{"PolicyName": "SendMail", "PolicyDocument": _policy(*sending, seeing, lifting)}],
    }
    return {"SendingRole": {"Type": "AWS::IAM::Role", "Condition": "MakesRole", "Properties": role}}


def _feedback(platform: Platform) -> PolicyDocument:
    """Return the resources that send SES's events to our bus: SES puts them on the account's default bus, a rule there forwards them.

    To put events on another account's bus the rule needs a role; that role can do nothing else.
    """
    default_bus = {"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default"}
    destination = {
        "Name": "feedback",
        "Enabled": True,
        "MatchingEventTypes": {"Fn::If": ["HasDeliveries", [*_PROBLEMS, "delivery"], _PROBLEMS]},
        "EventBridgeDestination": {"EventBusArn": default_bus},
    }
    rule = {
        "Description": f"Forwards SES's events of the mail that {platform.name} sends to {platform.name}.",
        "EventPattern": {"source": ["aws.ses"], "detail": {"mail": {"tags": {"ses:configuration-set": [_SET]}}}},
        "Targets": [{"Id": "feedback", "Arn": platform.feedback_bus, "RoleArn": {"Fn::GetAtt": ["FeedbackRole", "Arn"]}}],
    }
    trust = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sts:AssumeRole"}
    put = {"Sid": "PutOnTheirBus", "Effect": "Allow", "Action": "events:PutEvents", "Resource": platform.feedback_bus}
    role = {
        "Description": f"Lets EventBridge put SES's events on the event bus of {platform.name}, and nothing else.",
        "AssumeRolePolicyDocument": _policy(trust),
        "Policies": [{"PolicyName": "PutEvents", "PolicyDocument": _policy(put)}],
    }
    name = {"Name": {"Ref": "ConfigurationSetName"}}
    set_name = {"Fn::If": ["IsNewSet", {"Ref": "ConfigurationSet"}, {"Ref": "ExistingConfigurationSet"}]}
    events = {"ConfigurationSetName": set_name, "EventDestination": destination}
    return {
        "ConfigurationSet": {"Type": "AWS::SES::ConfigurationSet", "Condition": "MakesSet", "Properties": name},
        "EventDestination": {"Type": "AWS::SES::ConfigurationSetEventDestination", "Condition": "HasFeedback", "Properties": events},
        "FeedbackRule": {"Type": "AWS::Events::Rule", "Condition": "HasFeedback", "Properties": rule},
        "FeedbackRole": {"Type": "AWS::IAM::Role", "Condition": "HasFeedback", "Properties": role},
    }


def _parameters(config: StoredConfig | None) -> Mapping[str, Mapping[str, Any]]:
    return {**_role_parameters(config), **_feedback_parameters()}


def _role_parameters(config: StoredConfig | None) -> Mapping[str, Mapping[str, Any]]:
    narrower = f" For the config that is stored: {','.join(_resources(config))}" if config else ""
    return {
        "CreateRole": {
            "Type": "String",
            "AllowedValues": ["true", "false"],
            "Default": "true",
            "Description": "Whether to create a role to send with; not needed if the config has an access key.",
        },
        "ExternalId": {
            "Type": "String",
            "AllowedPattern": "[A-Za-z0-9_-]{2,128}",
            "Description": "The ExternalId that the role requires; it is unique to this tenant.",
        },
        "RoleName": {
            "Type": "String",
            "Default": "",
            "AllowedPattern": "[A-Za-z0-9_+=,.@-]{0,64}",
            "Description": "Name of the role; if empty, AWS chooses one.",
        },
        "SendAs": {
            "Type": "CommaDelimitedList",
            "Default": "*",
            "Description": f"ARNs of the SES identities and configuration sets to send with; * for all.{narrower}",
        },
        "LetSeeQuota": {
            "Type": "String",
            "Default": "false",
            "AllowedValues": ["true", "false"],
            "Description": "Whether the role may also read sandbox state, sending rate and quota: mail is then paced at its rate.",
        },
        "LetLiftSuppressions": {
            "Type": "String",
            "Default": "false",
            "AllowedValues": ["true", "false"],
            "Description": "Whether the role may also remove addresses from this account's suppression list when we lift them.",
        },
    }


def _feedback_parameters() -> Mapping[str, Mapping[str, Any]]:
    return {
        "Feedback": {
            "Type": "String",
            "Default": "all",
            "AllowedValues": ["all", "problems", "off"],
            "Description": "Which of SES's events to forward: all, all but deliveries, or none.",
        },
        "ConfigurationSetName": {
            "Type": "String",
            "AllowedPattern": "[A-Za-z0-9_-]{1,64}",
            "Description": "Name of the new configuration set.",
        },
        "ExistingConfigurationSet": {
            "Type": "String",
            "Default": "",
            "AllowedPattern": "[A-Za-z0-9_-]{0,64}",
            "Description": "An existing configuration set to use instead of a new one.",
        },
    }

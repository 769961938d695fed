"""Write what a tenant sets up in its own AWS account: the policies to paste, the template that makes a role of them, the pages to open."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mailer.domain.addresses import ascii_address
from mailer.domain.provider import StoredConfig
from mailer.domain.regions import partition_of

Document = Mapping[str, Any]

_CONSOLES = {"aws": "console.aws.amazon.com", "aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


@dataclass(frozen=True, slots=True)
class Us:
    """Whom a tenant lets in."""

    platform: str
    partition: str
    account: str
    roles: tuple[str, ...] = ()
    """The ARNs of the functions' roles that act as tenants."""

    @classmethod
    def of(cls, platform: str, arn: str, roles: Iterable[str] = ()) -> "Us":
        """Read partition and account from the ARN of something of ours."""
        _, partition, _, _, account, *_ = arn.split(":")
        return cls(platform, partition, account, tuple(roles))


def console_page(region: str, page: str) -> str:
    """Return the address of a page of the SES console in a region."""
    host = _CONSOLES.get(partition_of(region), _CONSOLES["aws"])
    return f"https://{region}.{host}/ses/home?region={region}#/{page}"


def trust_policy(us: Us, external_id: str) -> Document:
    """Return the trust policy of a tenant's role: the two functions of ours that send, and only with this tenant's ExternalId.

    IAM keeps a role that is named as principal by an id of its own, which a role that is made anew has not; the account with a
    condition on the ARN goes on letting that one in.
    """
    return _policy(
        {
            "Sid": "OnlyOurFunctionsWithOurExternalId",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:{us.partition}:iam::{us.account}:root"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"sts:ExternalId": external_id},
                "ArnEquals": {"aws:PrincipalArn": list(us.roles)},
            },
        }
    )


def send_statement(config: StoredConfig | None) -> Document:
    """Return the one IAM statement that sending takes, as narrow as what is known of the config allows."""
    return {"Sid": "SendRawEmail", "Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": _resources(config)}


def ask_statement() -> Document:
    """Return the statement that lets us see the sandbox, the rate and the quota, which sending does not need."""
    return {"Sid": "SeeSandboxAndQuota", "Effect": "Allow", "Action": ["ses:GetAccount", "ses:GetSendQuota"], "Resource": "*"}


def iam_policy(config: StoredConfig | None) -> Document:
    """Return the least policy that a user or role needs in order to send."""
    return _policy(send_statement(config))


def _resources(config: StoredConfig | None) -> list[str]:
    """Return what SES asks for a right on; anything while no config tells."""
    if config is None or config.provider != "ses":
        return ["*"]
    place = f"arn:{partition_of(config.region)}:ses:{config.region}:{config.account or '*'}"
    address = ascii_address(config.from_address)
    # SES asks for the identity that it verifies the sender by: the address if that is one, else its domain.
    names = [f"identity/{address}", f"identity/{address.rpartition('@')[2]}"]
    if config.configuration_set:
        names.append(f"configuration-set/{config.configuration_set}")
    return [f"{place}:{name}" for name in names]


def _policy(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def role_template(us: Us, external_id: str, config: StoredConfig | None) -> str:
    """Return a CloudFormation template, as JSON, that makes the role in the tenant's account and shows its ARN."""
    sending = {**send_statement(None), "Resource": {"Ref": "SendAs"}}
    seeing = {"Fn::If": ["SeesQuota", ask_statement(), {"Ref": "AWS::NoValue"}]}
    role = {
        "Description": f"Lets {us.platform} send mail through this account's Amazon SES.",
        "RoleName": {"Fn::If": ["IsNamed", {"Ref": "RoleName"}, {"Ref": "AWS::NoValue"}]},
        "AssumeRolePolicyDocument": trust_policy(us, external_id),
        "Policies": [{"PolicyName": "SendMail", "PolicyDocument": _policy(sending, seeing)}],
    }
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"A role with which {us.platform}, and nobody else, sends mail through this account's Amazon SES.",
        "Parameters": _parameters(config),
        "Conditions": {
            "IsNamed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "RoleName"}, ""]}]},
            "SeesQuota": {"Fn::Equals": [{"Ref": "LetSeeQuota"}, "true"]},
        },
        "Resources": {"SendingRole": {"Type": "AWS::IAM::Role", "Properties": role}},
        "Outputs": {
            "RoleArn": {"Description": "The roleArn to store as provider config.", "Value": {"Fn::GetAtt": ["SendingRole", "Arn"]}}
        },
    }
    return json.dumps(template, indent=2, ensure_ascii=False)


def _parameters(config: StoredConfig | None) -> Document:
    narrower = f" For the config that is stored: {','.join(_resources(config))}" if config else ""
    return {
        "RoleName": {
            "Type": "String",
            "Default": "",
            "AllowedPattern": "[A-Za-z0-9_+=,.@-]{0,64}",
            "Description": "A name for the role; without one AWS makes it up.",
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
            "Description": "Whether the role may also see the sandbox, sending rate and quota: mail is then paced to what the account may.",
        },
    }

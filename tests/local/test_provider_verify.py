"""Verify on accounts with enforced policies: keys with one right, roles with a trust policy, and hints that fix the fault."""

import json
from typing import Any

import pytest

from tools.local_aws.api import Answer
from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION
from tools.local_aws.tenants import MAY_SEND, Tenant

NOTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]}
MAY_TELL = {
    "Version": "2012-10-17",
    "Statement": [*MAY_SEND["Statement"], {"Effect": "Allow", "Action": "ses:GetAccount", "Resource": "*"}],
}


def verify(aws: LocalAws, tenant: Tenant, **config: Any) -> Answer:
    """Store the tenant's config with other fields, and verify it."""
    stored = aws.api.put_provider(tenant.tenant_id, tenant.provider(**config))
    assert stored.status == 200, stored.body
    return aws.api.verify(tenant.tenant_id)


def refused(answer: Answer, code: str) -> str:
    """Check that the config failed; return the hint."""
    assert (answer.status, answer.body["code"]) == (422, code), answer.body
    return str(answer.body["hint"])


def pasted(hint: str) -> dict[str, Any]:
    """Return the JSON of a hint."""
    document: dict[str, Any] = json.loads(hint[hint.index("{") :])
    return document


# -- access keys ---------------------------------------------------------------------------------------------------------


def test_one_right_is_enough(aws: LocalAws) -> None:
    """A key with only `ses:SendRawEmail` passes; what it may not read stays unknown."""
    tenant = aws.tenants.open()
    verified = verify(aws, tenant)
    assert (verified.status, verified.body["sandbox"]) == (200, "unknown")
    [mail] = aws.control.mails(account=tenant.account)
    assert (mail.message_id, mail.source, mail.destinations) == (verified.body["messageId"], tenant.from_address, [tenant.from_address])


@pytest.mark.parametrize("sandbox", [True, False])
def test_the_sandbox_is_known_with_the_right_to_read_it(aws: LocalAws, sandbox: bool) -> None:  # noqa: FBT001
    """By `ses:GetAccount`."""
    tenant = aws.tenants.open(policy=MAY_TELL, sandbox=sandbox)
    verified = verify(aws, tenant)
    assert verified.body["sandbox"] == str(sandbox).lower()
    assert any("is in the sandbox" in warning for warning in verified.body["warnings"]) is sandbox


def test_the_hint_of_a_missing_right_fixes_it(aws: LocalAws) -> None:
    """With the hint's statement in the user's policy the next verify passes."""
    tenant = aws.tenants.open(policy=NOTHING)
    statement = pasted(refused(verify(aws, tenant), "credentials_denied"))
    iam = aws.tenants.owner(tenant.account).client("iam", endpoint_url=aws.addresses.aws)
    # MiniStack knows no resources of SES v1; tests/unit/test_remediation.py checks those.
    policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": "*"}]}
    iam.put_user_policy(UserName="mail", PolicyName="mail", PolicyDocument=json.dumps(policy))
    assert aws.api.verify(tenant.tenant_id).status == 200


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"secretAccessKey": "wrong"}, "credentials_invalid"),
        ({"accessKeyId": "AKIAUNKNOWN000000000"}, "credentials_invalid"),
        ({"fromAddress": "nobody@unverified.example"}, "from_address_not_verified"),
        ({"region": "ap-southeast-2"}, "from_address_not_verified"),
    ],
)
def test_each_fault_has_its_code(aws: LocalAws, config: dict[str, str], code: str) -> None:
    """The config stays unverified and shows it."""
    tenant = aws.tenants.open()
    hint = refused(verify(aws, tenant, **config), code)
    record = aws.api.provider(tenant.tenant_id).body
    assert (record["status"], record["error"]["code"], record["error"]["hint"]) == ("unverified", code, hint)
    assert config.get("region", REGION) in hint or code == "credentials_invalid"


# -- roles ---------------------------------------------------------------------------------------------------------------


def launch(aws: LocalAws, tenant: Tenant, **parameters: str) -> str:
    """Create the role in the tenant's account by the onboarding template; return its ARN."""
    return aws.tenants.launch_role(tenant, aws.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"], **parameters)


def trust(aws: LocalAws, tenant: Tenant, role_arn: str, policy: dict[str, Any]) -> None:
    iam = aws.tenants.owner(tenant.account).client("iam", endpoint_url=aws.addresses.aws)
    iam.update_assume_role_policy(RoleName=role_arn.rpartition("/")[2], PolicyDocument=json.dumps(policy))


def verify_role(aws: LocalAws, tenant_id: str, provider: dict[str, Any]) -> Answer:
    stored = aws.api.put_provider(tenant_id, provider)
    assert stored.status == 200, stored.body
    return aws.api.verify(tenant_id)


def test_the_onboarding_template_creates_a_working_role(aws: LocalAws) -> None:
    """Launched unchanged, stored, verified: mail is sent from the tenant's account, without any key."""
    tenant = aws.tenants.open()
    role = launch(aws, tenant)
    verified = verify_role(aws, tenant.tenant_id, tenant.provider_by_role(role))
    assert (verified.status, verified.body["status"]) == (200, "active"), verified.body
    record = aws.api.provider(tenant.tenant_id).body
    assert record["credentials"]["roleArn"] == role
    [mail] = aws.control.mails(account=tenant.account)
    assert mail.message_id == verified.body["messageId"]


def test_a_role_may_allow_reading_the_sandbox(aws: LocalAws) -> None:
    """One parameter of the template grants this optional right."""
    tenant = aws.tenants.open(sandbox=True)
    role = launch(aws, tenant, LetSeeQuota="true", RoleName="SendMail")
    assert role.endswith(":role/SendMail")
    assert verify_role(aws, tenant.tenant_id, tenant.provider_by_role(role)).body["sandbox"] == "true"


def test_a_role_without_an_external_id_is_not_activated(aws: LocalAws) -> None:
    """Anyone who knew its ARN could send as this tenant. The hint's trust policy fixes it."""
    tenant = aws.tenants.open()
    role = launch(aws, tenant)
    principal = pasted(json.dumps(aws.api.onboarding(tenant.tenant_id).body["trustPolicy"]))
    del principal["Statement"][0]["Condition"]
    trust(aws, tenant, role, principal)
    hint = refused(verify_role(aws, tenant.tenant_id, tenant.provider_by_role(role)), "role_not_assumable")
    assert aws.control.mails(account=tenant.account) == []
    trust(aws, tenant, role, pasted(hint))
    assert aws.api.verify(tenant.tenant_id).status == 200


def test_a_role_with_another_external_id_cannot_be_assumed(aws: LocalAws) -> None:
    """As after a typing error; the hint's trust policy fixes it."""
    tenant = aws.tenants.open()
    role = launch(aws, tenant)
    policy = pasted(json.dumps(aws.api.onboarding(tenant.tenant_id).body["trustPolicy"]))
    policy["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = "another"
    trust(aws, tenant, role, policy)
    hint = refused(verify_role(aws, tenant.tenant_id, tenant.provider_by_role(role)), "role_not_assumable")
    trust(aws, tenant, role, pasted(hint))
    assert aws.api.verify(tenant.tenant_id).status == 200


def test_no_tenant_can_use_another_tenant_s_role(aws: LocalAws) -> None:
    """Its ARN is not enough: roles are assumed with the ExternalId of the tenant."""
    victim, thief = aws.tenants.open(), aws.tenants.open()
    role = launch(aws, victim)
    assert verify_role(aws, victim.tenant_id, victim.provider_by_role(role)).status == 200
    refused(verify_role(aws, thief.tenant_id, victim.provider_by_role(role)), "role_not_assumable")
    assert len(aws.control.mails(account=victim.account)) == 1

"""Create realistic tenants: each with its own AWS account, and an IAM user that may only send."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import boto3

from tools.local_aws.control import Control
from tools.local_aws.server import REGION, Addresses

MAY_SEND = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*"}]}


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant with its own AWS account."""

    tenant_id: str
    account: str
    access_key: str
    secret_key: str
    from_address: str
    from_name: str
    region: str = REGION

    def provider(self, **changes: Any) -> dict[str, Any]:
        """Return the body of `PUT …/provider`; `changes` replace or add fields of the config."""
        config = {
            "accessKeyId": self.access_key,
            "secretAccessKey": self.secret_key,
            "region": self.region,
            "fromAddress": self.from_address,
            "fromName": self.from_name,
        }
        return {"provider": "ses", "config": {**config, **changes}}

    def provider_by_role(self, role_arn: str, **changes: Any) -> dict[str, Any]:
        """Return the body of `PUT …/provider` with a role of the tenant's account instead of a key; `changes` as for `provider`."""
        config = self.provider()["config"]
        own = {name: config[name] for name in ("region", "fromAddress", "fromName")}
        return {"provider": "ses", "config": {"roleArn": role_arn, **own, **changes}}


class Tenants:
    """Creates AWS accounts in the local AWS."""

    def __init__(self, addresses: Addresses) -> None:
        self._aws = addresses.aws
        self._control = Control(addresses.control)

    def open(
        self, tenant_id: str = "", *, sandbox: bool = False, verified: Iterable[str] = (), policy: dict[str, Any] | None = None
    ) -> Tenant:
        """Create an account: an IAM user with `policy`, the from-address and `verified` as identities, in the sandbox or not."""
        tenant_id = tenant_id or f"t-{secrets.token_hex(5)}"
        account = str(secrets.randbelow(9 * 10**11) + 10**11)
        owner = self.owner(account)
        iam = owner.client("iam", endpoint_url=self._aws)
        iam.create_user(UserName="mail")
        iam.put_user_policy(UserName="mail", PolicyName="mail", PolicyDocument=json.dumps(policy or MAY_SEND))
        key = iam.create_access_key(UserName="mail")["AccessKey"]
        self._control.set_account(key["AccessKeyId"], account)
        from_address = f"billing@{tenant_id.lower().replace('_', '-')}.example"
        self.verify_identities(account, [from_address, *verified])
        self.set_sandbox(account, sandbox=sandbox)
        return Tenant(tenant_id, account, key["AccessKeyId"], key["SecretAccessKey"], from_address, f"{tenant_id} Billing")

    def revoke_key(self, tenant: Tenant) -> None:
        """Delete the access key of a tenant's config."""
        self.owner(tenant.account).client("iam", endpoint_url=self._aws).delete_access_key(UserName="mail", AccessKeyId=tenant.access_key)

    def launch(self, tenant: Tenant, template: str, **parameters: str) -> dict[str, str]:
        """Create a stack of the onboarding template in the tenant's account; return its outputs."""
        cloudformation = self.owner(tenant.account).client("cloudformation", endpoint_url=self._aws)
        cloudformation.create_stack(
            StackName="mail",
            TemplateBody=template,
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        )
        cloudformation.get_waiter("stack_create_complete").wait(StackName="mail", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        [stack] = cloudformation.describe_stacks(StackName="mail")["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def launch_role(self, tenant: Tenant, template: str, **parameters: str) -> str:
        """Create the role in the tenant's account, with the onboarding template; return its ARN."""
        return self.launch(tenant, template, **parameters)["RoleArn"]

    def owner(self, account: str) -> boto3.Session:
        """Return a session of an account's root user."""
        return boto3.Session(account, "root", region_name=REGION)

    def verify_identities(self, account: str, identities: Iterable[str]) -> None:
        ses = self.owner(account).client("ses", endpoint_url=self._aws)
        for identity in identities:
            if "@" in identity:
                ses.verify_email_identity(EmailAddress=identity)
            else:
                ses.verify_domain_identity(Domain=identity)

    def set_sandbox(self, account: str, *, sandbox: bool) -> None:
        """Put an account's SES into the sandbox, or grant it production access."""
        self.owner(account).client("sesv2", endpoint_url=self._aws).put_account_details(
            MailType="TRANSACTIONAL", WebsiteURL="https://example.com", ProductionAccessEnabled=not sandbox
        )

"""Operators' tasks in the console, in a real browser on the deployed template."""

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browsing import browser
from tools.local_aws import console_process
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant
from tools.local_aws.up import exports

__all__ = ["browser"]

SLOW = 90_000
"""Milliseconds until a page must show the functions' results: the sweeper runs every minute."""


class Operator:
    """A user of the console."""

    def __init__(self, page: Page, address: str, aws: LocalAws) -> None:
        self.page = page
        self._address = address.rstrip("/")
        self._aws = aws

    def open(self, path: str) -> None:
        self.page.goto(self._address + path)

    def see(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=SLOW)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def store_key(self, tenant: Tenant, **changes: str) -> None:
        """Fill in the onboarding form for an access key."""
        self.open(f"/tenants/{tenant.tenant_id}/onboarding?by=key")
        fields = {"Access key id": tenant.access_key, "Secret access key": tenant.secret_key, "SES region": tenant.region}
        fields |= {"From address": tenant.from_address, "From name": tenant.from_name, **changes}
        self.fill(fields)
        self.press("Store the config")
        self.see("The config is stored")

    def fill(self, fields: Mapping[str, str]) -> None:
        for label, value in fields.items():
            self.page.get_by_label(label).fill(value)

    def send(self, tenant: Tenant, to: str, *, subject: str = "Hello", request_id: str = "") -> str:
        """Compose a mail and send it; return its requestId; its page is then open."""
        request_id = request_id or f"console-{secrets.token_hex(4)}"
        self.open(f"/compose?tenant={tenant.tenant_id}")
        self.page.get_by_label("To", exact=True).fill(to)
        self.page.get_by_label("Subject").fill(subject)
        self.page.get_by_text("More: other recipients").click()
        self.page.get_by_label("requestId", exact=True).fill(request_id)
        self.press("Send")
        self.see("The request is accepted")
        return request_id

    def lift(self, tenant: Tenant, address: str) -> None:
        """Lift the suppression of an address."""
        self.open(f"/tenants/{tenant.tenant_id}/suppressions?email={address}")
        self.page.get_by_label(f"Lift {address}").click()
        self.page.get_by_label("Why it may get mail again").fill("asked again")
        self.press(f"Lift {address}")
        self.see("is off the list")

    def see_status(self, status: str) -> None:
        expect(self.page.locator("#lead .status")).to_have_text(status, timeout=SLOW)


@pytest.fixture(scope="module")
def console(running_aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The console as `make up` starts it."""
    folder = tmp_path_factory.mktemp("console")
    yield console_process.start(folder, exports(running_aws))
    console_process.stop(folder)


@pytest.fixture
def operator(browser: Browser, console: str, aws: LocalAws) -> Iterator[Operator]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SLOW)
    yield Operator(context.new_page(), console, aws)
    context.close()


def test_a_tenant_is_onboarded_and_its_first_mail_seen(operator: Operator, aws: LocalAws) -> None:
    """From onboarding and composing to the inbox."""
    tenant = aws.tenants.open()
    page = operator.page
    operator.open("/tenants")
    page.get_by_text("Onboard a tenant").click()
    page.get_by_label("Its id").fill(tenant.tenant_id)
    operator.press("Continue")
    operator.see("Trust policy" if "by=role" in page.url else "In the tenant's AWS account")
    operator.store_key(tenant)
    operator.press("Verify")
    operator.see("The test mail went out: the config is active.")
    operator.send(tenant, f"jo@{tenant.tenant_id}.test", subject="Grüße <b>aus Köln</b>")
    operator.see_status("sent")
    page.get_by_role("link", name="See the mail").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Grüße <b>aus Köln</b>")
    operator.open("/inbox")
    operator.see("SES connection test")
    operator.open("/tenants?q=" + tenant.tenant_id)
    operator.see(tenant.from_address)


def test_a_tenant_is_onboarded_with_a_role(operator: Operator, aws: LocalAws) -> None:
    """With the onboarding template, launched in the tenant's account."""
    tenant = aws.tenants.open()
    operator.open(f"/tenants/{tenant.tenant_id}/onboarding?by=role")
    with operator.page.expect_download() as download:
        operator.page.get_by_role("link", name="Download the template").first.click()
    made = aws.tenants.launch(tenant, download.value.path().read_text(encoding="utf-8"), CreateRole="true", Feedback="all")
    fields = {"Role ARN": made["RoleArn"], "SES region": tenant.region, "Configuration set": made["ConfigurationSet"]}
    operator.fill({**fields, "From address": tenant.from_address, "From name": tenant.from_name})
    operator.press("Store the config")
    operator.see("The config is stored")
    operator.press("Verify")
    operator.see("The test mail went out: the config is active.")
    operator.send(tenant, f"jo@{tenant.tenant_id}.test")
    operator.see_status("sent")


def test_a_bounce_is_shown_and_its_suppression_lifted(operator: Operator, aws: LocalAws) -> None:
    """SES's event has the response of the receiving server and suppresses the address; after lifting it gets mail again."""
    tenant, address = aws.tenant_with_feedback(), "bounce@simulator.amazonses.com"
    request_id = operator.send(tenant, address)
    operator.see_status("sent")
    deadline = time.monotonic() + 60
    while aws.api.call("GET", f"/tenants/{tenant.tenant_id}/suppressions/{quote(address)}").status != 200 and time.monotonic() < deadline:
        time.sleep(0.2)  # only the list shows it
    operator.open(f"/tenants/{tenant.tenant_id}/messages/{request_id}")
    operator.see("Bounced")
    operator.see(address)
    operator.see(re.compile("550 5.1.1"))
    operator.send(tenant, address)
    operator.see_status("failed")
    operator.see("recipient_suppressed")
    operator.lift(tenant, address)
    operator.send(tenant, address)
    operator.see_status("sent")


def test_a_suppressed_address_is_lifted(operator: Operator, tenant: Tenant) -> None:
    """Mail fails before and is sent after; the page mentions the account's own list."""
    address = f"gone@{tenant.tenant_id}.test"
    operator.open(f"/tenants/{tenant.tenant_id}/suppressions")
    operator.see("No address is suppressed")
    operator.page.get_by_label("Address", exact=True).fill(address)
    operator.page.get_by_label("Why", exact=True).fill("asked by phone")
    operator.press("Suppress")
    operator.see("is on the list")
    operator.send(tenant, address)
    operator.see_status("failed")
    operator.see("recipient_suppressed")
    operator.lift(tenant, address)
    operator.send(tenant, address)
    operator.see_status("sent")


def test_a_revoked_key_is_shown_and_replaced(operator: Operator, aws: LocalAws, tenant: Tenant) -> None:
    """The mail waits, the page says who must do what, and after a new key the waiting mail is sent."""
    aws.tenants.revoke_key(tenant)
    waiting = [operator.send(tenant, f"jo@{tenant.tenant_id}.test") for _ in range(3)]
    operator.see_status("deferred")
    deadline = time.monotonic() + 60
    while aws.api.provider(tenant.tenant_id).body["status"] != "suspended" and time.monotonic() < deadline:
        time.sleep(0.2)  # only the record shows it
    operator.open(f"/tenants/{tenant.tenant_id}")
    operator.see("credentials_invalid")
    operator.see("Suspended")
    operator.press("Verify")
    operator.see(re.compile("Make a new key"))
    iam = aws.tenants.owner(tenant.account).client("iam", endpoint_url=aws.addresses.aws)
    key = iam.create_access_key(UserName="mail")["AccessKey"]
    aws.control.set_account(key["AccessKeyId"], tenant.account)
    operator.store_key(tenant, **{"Access key id": key["AccessKeyId"], "Secret access key": key["SecretAccessKey"]})
    operator.press("Verify")
    operator.see("The test mail went out: the config is active.")
    aws.sweep()
    for request_id in waiting:
        operator.open(f"/tenants/{tenant.tenant_id}/messages/{request_id}")
        operator.see_status("sent")
    operator.see("Deferred")


def test_a_dead_letter_is_redriven(operator: Operator, aws: LocalAws, tenant: Tenant) -> None:
    """From the list by reason and tenant to the sent mail."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "late", "text": "late"}
    body = json.dumps({"tenantId": tenant.tenant_id, "requestId": "late-1", "message": message})
    aws.client("sqs").send_message(QueueUrl=aws.stack.outputs["DeadLetterQueueUrl"], MessageBody=body)
    operator.open(f"/dead-letters?tenant={tenant.tenant_id}&reason=moved_by_sqs")
    operator.press("Redrive 1")
    operator.see("Done: 1 redriven.")
    operator.page.get_by_role("link", name="late-1").click()
    operator.see_status("sent")


def test_an_unknown_is_resolved(operator: Operator, aws: LocalAws, tenant: Tenant) -> None:
    """With its operator and reason in its timeline."""
    aws.control.inject("reset", operation="SendRawEmail", access_key=tenant.access_key, times=1)
    operator.send(tenant, f"jo@{tenant.tenant_id}.test", request_id="lost-1")
    operator.see_status("unknown")
    operator.open("/find?q=lost-1")
    operator.page.get_by_role("radio", name="It was sent").check()
    operator.page.get_by_label("Why").fill("found in the SES events")
    operator.press("Resolve")
    operator.see("The request counts as sent.")
    operator.see("Resolved: it was sent")
    operator.see_status("sent")


def test_what_iam_denies_is_shown_as_denied(browser: Browser, aws: LocalAws, tenant: Tenant, tmp_path: Path) -> None:
    """For an operator who may read the stack and call no route."""
    iam, name = aws.client("iam"), f"guest-{secrets.token_hex(4)}"
    iam.create_user(UserName=name)
    see = {"Effect": "Allow", "Action": ["cloudformation:DescribeStacks", "cloudformation:ListStackResources"], "Resource": "*"}
    iam.put_user_policy(UserName=name, PolicyName="see", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [see]}))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    as_guest = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    address = console_process.start(tmp_path, {**exports(aws), **as_guest})
    try:
        guest = Operator(browser.new_page(), address, aws)
        for path in (
            "/now",
            "/tenants",
            f"/tenants/{tenant.tenant_id}",
            "/dead-letters",
            "/messages",
            f"/messages?tenant={tenant.tenant_id}",
        ):
            guest.open(path)
            guest.see("Denied by IAM")
        guest.page.close()
    finally:
        console_process.stop(tmp_path)

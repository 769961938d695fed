"""Callers' operations on a tenant's suppressions: put, show, list and lift."""

import subprocess
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Sent
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError, RequestError, UnreadableError
from mailer.domain.provider import Provider
from mailer.domain.suppressions import Entry, Lifting, Reason, Suppression
from mailer.ports import Cleared, EmailProvider
from mailer.services.suppressions import lists
from mailer.services.suppressions.lists import ASK_BY, Suppressed, SuppressionDependencies, SuppressionRequest
from support.fakes.ports import NOON, FakeClock, InlineExecutor, a_config, a_provider
from support.fakes.providers import FakeAccount, FakeStore
from support.fakes.suppressions import FakeMarks, FakeSuppressionsTable, an_entry

DAY = timedelta(days=1)
JO, ANN = "jo@example.com", "ann@example.com"
COMMAND = f"aws sesv2 delete-suppressed-destination --email-address={JO} --region eu-west-1"


@dataclass
class FakeFactory:
    """Returns the account after the time `takes`, or raises."""

    account: FakeAccount
    clock: FakeClock
    refusal: Exception | None = None
    takes: timedelta = timedelta()
    since: datetime | None = None

    def create(self, tenant_id: str, config: Any, since: datetime | None = None) -> EmailProvider:  # noqa: ARG002 - as the port has it
        self.since = since
        self.clock.advance(self.takes)
        if self.refusal:
            raise self.refusal
        return self.account


@dataclass
class Scene:
    """The service with fakes."""

    suppressions: FakeSuppressionsTable = field(default_factory=FakeSuppressionsTable)
    row: Provider | None = field(default_factory=a_provider)
    marks: FakeMarks = field(default_factory=FakeMarks)
    clock: FakeClock = field(default_factory=FakeClock)
    account: FakeAccount = field(default_factory=lambda: FakeAccount(Sent("m")))

    def __post_init__(self) -> None:
        self.factory = FakeFactory(self.account, self.clock)
        self.deps = SuppressionDependencies(
            suppressions=self.suppressions,
            marks=self.marks,
            providers=FakeStore(*([self.row] if self.row else [])),
            provider_factory=self.factory,
            clock=self.clock,
            workers=InlineExecutor(),
        )

    def entry(self, email: str = JO) -> Entry:
        return self.suppressions.entries["acme", email]

    def lift(self, email: str = JO) -> lists.Lifted:
        return lists.lift_suppression("acme", email, self.deps, by="arn:caller", why="mailbox is back")


# ── suppress ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manual_suppression_has_who_and_why() -> None:
    """The tenant is marked before the entry is written, because sending depends on the mark."""
    scene = Scene()
    scene.suppressions.before = lambda _: None if scene.marks.marked else pytest.fail("no mark")
    stored = lists.suppress("acme", SuppressionRequest(JO, "asked by phone", NOON + DAY, "arn:caller"), scene.deps)
    assert stored == Suppression(reason=Reason.MANUAL, at=NOON, expires_at=NOON + DAY, by="arn:caller", why="asked by phone")
    assert scene.entry().suppression == stored


def test_a_manual_suppression_does_not_replace_one_by_ses() -> None:
    """The response shows that of SES."""
    scene = Scene(FakeSuppressionsTable(an_entry()))
    assert lists.suppress("acme", SuppressionRequest(JO, "old list", NOON + DAY), scene.deps).reason is Reason.HARD_BOUNCE


def test_a_past_expiry_is_refused() -> None:
    """It would suppress nothing."""
    scene = Scene()
    with pytest.raises(RequestError) as refusal:
        lists.suppress("acme", SuppressionRequest(JO, "why", NOON), scene.deps)
    assert [problem.path for problem in refusal.value.problems] == ["expiresAt"]
    assert not scene.suppressions.entries


def test_a_tenant_without_a_row_is_refused() -> None:
    """A row that is created later would not have the mark."""
    scene = Scene(marks=FakeMarks(unknown={"acme"}))
    with pytest.raises(RequestError) as refusal:
        lists.suppress("acme", SuppressionRequest(JO, "why"), scene.deps)
    assert refusal.value.code == "provider_not_configured"
    assert not scene.suppressions.entries


def test_a_batch_has_one_result_per_address_in_order() -> None:
    """A failed write does not stop others; of two with one address the last counts."""
    scene = Scene(FakeSuppressionsTable(an_entry("hard@example.com")))

    def fails(entry: Entry) -> None:
        if entry.email == ANN:
            raise DependencyError("DynamoDB", "PutItem")

    scene.suppressions.before = fails
    unreadable = RequestError([])
    batch = [
        SuppressionRequest(JO, "first"),
        unreadable,
        SuppressionRequest(ANN, "x"),
        SuppressionRequest("hard@example.com", "x"),
        SuppressionRequest("b@example.com", "x", NOON),
        SuppressionRequest(JO, "last"),
    ]
    results = lists.suppress_batch("acme", batch, scene.deps)
    assert isinstance(results[0], RequestError)
    assert results[1] is unreadable
    assert isinstance(results[2], DependencyError)
    assert isinstance(results[3], Suppressed)
    assert results[3].suppression.reason is Reason.HARD_BOUNCE
    assert isinstance(results[4], RequestError)
    assert isinstance(results[5], Suppressed)
    assert (results[5].email, results[5].suppression.why) == (JO, "last")
    assert len(scene.suppressions.reads) == 1


def test_an_unreadable_entry_affects_only_its_own_address_of_a_batch() -> None:
    """A later version may have written it."""
    scene = Scene()
    scene.suppressions.unreadable = {JO}
    refused, done = lists.suppress_batch("acme", [SuppressionRequest(JO, "x"), SuppressionRequest(ANN, "x")], scene.deps)
    assert isinstance(refused, UnreadableError)
    assert isinstance(done, Suppressed)
    assert set(scene.suppressions.entries) == {("acme", ANN)}


def test_a_batch_without_valid_items_makes_no_calls() -> None:
    """It neither reads nor marks."""
    scene = Scene()
    assert len(lists.suppress_batch("acme", [RequestError([]), RequestError([])], scene.deps)) == 2
    assert not scene.marks.marked
    assert not scene.suppressions.reads


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_address_without_a_suppression_is_not_found() -> None:
    """Neither is one that is only counted, was lifted or has expired."""
    counted = Entry(tenant_id="acme", email=ANN, soft_bounces={"r1": NOON})
    expired = replace(an_entry(), suppression=Suppression(reason=Reason.MANUAL, at=NOON - DAY, expires_at=NOON))
    scene = Scene(FakeSuppressionsTable(counted, expired))
    for email in (JO, ANN, "nobody@example.com"):
        for call in (lists.get_suppression, lambda t, e, d: lists.lift_suppression(t, e, d, by=None, why=None)):
            with pytest.raises(RequestError) as refusal:
                call("acme", email, scene.deps)
            assert refusal.value.code == "not_found"


def test_a_list_leaves_out_expired_entries() -> None:
    """DynamoDB deletes it days later."""
    expired = replace(an_entry(), suppression=Suppression(reason=Reason.MANUAL, at=NOON - DAY, expires_at=NOON))
    scene = Scene(FakeSuppressionsTable(expired, an_entry(ANN)))
    page = lists.list_suppressions("acme", scene.deps, reason=None, limit=10, cursor=None)
    assert [entry.email for entry in page.entries] == [ANN]


def test_a_cursor_of_another_list_is_not_found() -> None:
    """Neither is another tenant's."""
    scene = Scene()
    with pytest.raises(RequestError) as refusal:
        lists.list_suppressions("acme", scene.deps, reason=None, limit=10, cursor="another")
    assert refusal.value.code == "not_found"


# ── lift ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lifted_address_is_mailed_again_and_has_who_and_why() -> None:
    """The response has the suppression before the lift."""
    scene = Scene(FakeSuppressionsTable(an_entry()))
    lifted = scene.lift()
    assert lifted.suppression.reason is Reason.HARD_BOUNCE
    assert scene.entry().in_force(NOON) is None
    assert scene.entry().lifted == Lifting(NOON, "arn:caller", "mailbox is back")


@pytest.mark.parametrize("reason", [Reason.MANUAL, Reason.HARD_BOUNCE])
def test_a_concurrent_suppression_makes_a_lift_a_conflict(reason: Reason) -> None:
    """Another caller or a bounce suppressed it during the call of SES; a second lift removes that too."""
    scene = Scene(FakeSuppressionsTable(an_entry()))
    again = Suppression(reason=reason, at=NOON + timedelta(seconds=1))

    def suppress_concurrently(entry: Entry) -> None:
        scene.suppressions.before = lambda _: None
        scene.suppressions.entries["acme", JO] = replace(entry, suppression=again, lifted=None, revision=entry.revision + 1)

    scene.suppressions.before = suppress_concurrently
    with pytest.raises(RequestError) as refusal:
        scene.lift()
    assert refusal.value.code == "suppressed_again"
    assert scene.entry().in_force(NOON) == again
    scene.clock.advance(DAY)
    assert scene.lift().suppression == again
    assert scene.entry().in_force(NOON + DAY) is None


def test_an_entry_of_a_clock_ahead_of_ours_is_lifted() -> None:
    """The caller saw it before the lift."""
    later = NOON + timedelta(milliseconds=500)
    bounced = Suppression(reason=Reason.HARD_BOUNCE, at=later + timedelta(milliseconds=1), expires_at=NOON + DAY)
    scene = Scene(FakeSuppressionsTable(replace(an_entry(reason=Reason.MANUAL, at=later), by_ses=bounced)))
    assert scene.lift().suppression.at == later
    assert scene.entry().in_force(NOON) is None


def test_an_address_removed_from_ses_s_list_needs_no_command() -> None:
    """The tenant's policy allows the removal."""
    scene = Scene(FakeSuppressionsTable(an_entry()))
    scene.account.clears = {JO: Cleared.GONE}
    assert scene.lift().ses_list == lists.SesList(may_hold=False, command=None)
    assert scene.account.cleared == [JO]
    assert scene.factory.since == a_provider().verified_at is not None


@pytest.mark.parametrize(
    ("clears", "calls", "may_hold"),
    [
        ({"Jo@Example.com": Cleared.GONE, JO: Cleared.NOT_FOUND}, ["Jo@Example.com", JO], False),
        ({"Jo@Example.com": Cleared.GONE, JO: Cleared.GONE}, ["Jo@Example.com", JO], False),
        ({"Jo@Example.com": Cleared.GONE}, ["Jo@Example.com", JO], True),
        ({"Jo@Example.com": Cleared.NOT_FOUND, JO: Cleared.GONE}, ["Jo@Example.com", JO], False),
        ({"Jo@Example.com": Cleared.NOT_FOUND, JO: Cleared.NOT_FOUND}, ["Jo@Example.com", JO], False),
        ({"Jo@Example.com": Cleared.NOT_FOUND}, ["Jo@Example.com", JO], True),
        ({JO: Cleared.GONE}, ["Jo@Example.com"], True),
    ],
)
def test_ses_s_own_spelling_is_removed_from_its_list(clears: dict[str, Cleared], calls: list[str], may_hold: bool) -> None:  # noqa: FBT001 - a case's answer
    """SES's list has the mail's spelling and is case-sensitive."""
    scene = Scene(FakeSuppressionsTable(an_entry(spelling="Jo@Example.com")))
    scene.account.clears = clears
    lifted = scene.lift().ses_list
    assert scene.account.cleared == calls
    assert lifted.may_hold is may_hold
    assert lifted.command == (COMMAND.replace(JO, "Jo@Example.com") if may_hold else None)


def test_the_spelling_of_a_covered_suppression_is_removed_too() -> None:
    """SES put it on its list before the manual suppression."""
    bounced = an_entry(spelling="JO@example.com").suppression
    scene = Scene(FakeSuppressionsTable(replace(an_entry(reason=Reason.MANUAL), by_ses=bounced)))
    scene.account.clears = {"JO@example.com": Cleared.GONE, JO: Cleared.NOT_FOUND}
    assert not scene.lift().ses_list.may_hold


@pytest.mark.parametrize("reason", [Reason.MANUAL, Reason.SES_LIST, Reason.SOFT_BOUNCES, Reason.HARD_BOUNCE])
def test_an_address_that_ses_does_not_find_may_have_another_spelling(reason: Reason) -> None:
    """Only the spelling of a known mail is certain; older entries do not have it."""
    spelling = None if reason in (Reason.MANUAL, Reason.HARD_BOUNCE) else JO
    scene = Scene(FakeSuppressionsTable(an_entry(reason=reason, spelling=spelling)))
    scene.account.clears = {JO: Cleared.NOT_FOUND}
    assert scene.lift().ses_list == lists.SesList(may_hold=True, command=COMMAND)


def test_without_the_right_at_ses_the_command_is_returned() -> None:
    """SES's own list may contain the address."""
    scene = Scene(FakeSuppressionsTable(an_entry()))
    assert scene.lift().ses_list == lists.SesList(may_hold=True, command=COMMAND)


@pytest.mark.parametrize("refusal", [NotSentError(ErrorInfo("config_unreadable", "")), DependencyError("KMS", "Decrypt")])
def test_an_unusable_config_does_not_prevent_a_lift(refusal: Exception) -> None:
    """Rights at SES are not required."""
    scene = Scene(FakeSuppressionsTable(an_entry()))
    scene.factory.refusal = refusal
    assert scene.lift().ses_list == lists.SesList(may_hold=True, command=COMMAND)
    assert scene.entry().in_force(NOON) is None


def test_ses_is_not_called_without_enough_time() -> None:
    """API Gateway times out after 29 s."""
    scene = Scene(FakeSuppressionsTable(an_entry()))
    scene.account.clears = {JO: Cleared.GONE}
    scene.factory.takes = ASK_BY + timedelta(seconds=1)
    assert scene.lift().ses_list.may_hold
    assert not scene.account.cleared


@pytest.mark.parametrize("row", [None, a_provider(active=None)])
def test_without_a_config_the_command_has_no_region(row: Provider | None) -> None:
    """The command then uses the region of the reader's own AWS config."""
    lifted = Scene(FakeSuppressionsTable(an_entry()), row).lift()
    assert lifted.ses_list.command == f"aws sesv2 delete-suppressed-destination --email-address={JO}"


def test_without_an_active_config_the_candidate_s_account_is_used() -> None:
    """A tenant may import its list during onboarding."""
    scene = Scene(FakeSuppressionsTable(an_entry()), a_provider(active=None, candidate=a_config(version=2)))
    scene.lift()
    assert scene.account.cleared == [JO]


@pytest.mark.parametrize("email", ["o'neil`${x}`&|!*@example.com", "--debug@example.com", "{a,b}#~=?@example.com"])
def test_the_command_is_safe_to_paste(email: str) -> None:
    """An address may contain characters of the shell, or look like an option."""
    scene = Scene(FakeSuppressionsTable(an_entry(email)))
    command = scene.lift(email).ses_list.command
    assert command is not None
    shown = subprocess.run(["/bin/sh", "-c", command.replace("aws", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ["sesv2", "delete-suppressed-destination", f"--email-address={email}", "--region", "eu-west-1"]


def test_ses_is_called_before_the_write_so_that_a_lift_can_be_repeated() -> None:
    """In the other order a second call would return 404 without the command."""
    scene = Scene(FakeSuppressionsTable(an_entry()))

    def fail(_: Entry) -> None:
        raise DependencyError("DynamoDB", "PutItem")

    scene.suppressions.before = fail
    with pytest.raises(DependencyError):
        scene.lift()
    scene.suppressions.before = lambda _: None
    assert scene.lift().ses_list.command == COMMAND

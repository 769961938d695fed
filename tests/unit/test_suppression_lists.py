"""What callers add to a tenant's suppressions, see of them and lift."""

import subprocess
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Sent
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError, RequestError
from mailer.domain.provider import Provider
from mailer.domain.suppressions import Entry, Lifting, Reason, Suppression
from mailer.ports import Cleared, EmailProvider
from mailer.services.suppressions import lists
from mailer.services.suppressions.lists import ASK_BY, Suppressed, SuppressionDependencies, Word
from support.fakes.ports import NOON, FakeClock, InlineExecutor, a_config, a_provider
from support.fakes.providers import FakeAccount, FakeStore
from support.fakes.suppressions import FakeMarks, FakeSuppressionsTable, an_entry

DAY = timedelta(days=1)
JO, ANN = "jo@example.com", "ann@example.com"
COMMAND = f"aws sesv2 delete-suppressed-destination --email-address={JO} --region eu-west-1"


@dataclass
class FakeFactory:
    """Opens the account, or raises; `takes` passes while it does."""

    account: FakeAccount
    clock: FakeClock
    refusal: Exception | None = None
    takes: timedelta = timedelta()

    def create(self, tenant_id: str, config: Any) -> EmailProvider:  # noqa: ARG002 - as the port has it
        self.clock.advance(self.takes)
        if self.refusal:
            raise self.refusal
        return self.account


@dataclass
class Desk:
    """The service over fakes."""

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


def test_a_word_is_kept_with_who_and_why() -> None:
    """And the tenant is marked before it, or sending would not look."""
    desk = Desk()
    desk.suppressions.before = lambda _: None if desk.marks.marked else pytest.fail("no mark")
    said = lists.suppress("acme", Word(JO, "asked by phone", NOON + DAY, "arn:caller"), desk.deps)
    assert said == Suppression(reason=Reason.MANUAL, at=NOON, expires_at=NOON + DAY, by="arn:caller", why="asked by phone")
    assert desk.entry().suppression == said


def test_what_ses_told_stands_and_is_answered() -> None:
    """A word never weakens it."""
    desk = Desk(FakeSuppressionsTable(an_entry()))
    assert lists.suppress("acme", Word(JO, "old list", NOON + DAY), desk.deps).reason is Reason.HARD_BOUNCE


def test_an_end_that_has_passed_is_refused() -> None:
    """It would suppress nothing."""
    desk = Desk()
    with pytest.raises(RequestError) as refusal:
        lists.suppress("acme", Word(JO, "why", NOON), desk.deps)
    assert [problem.path for problem in refusal.value.problems] == ["expiresAt"]
    assert not desk.suppressions.entries


def test_a_tenant_without_a_row_is_refused() -> None:
    """A row that is made later would know nothing of the suppression."""
    desk = Desk(marks=FakeMarks(unknown={"acme"}))
    with pytest.raises(RequestError) as refusal:
        lists.suppress("acme", Word(JO, "why"), desk.deps)
    assert refusal.value.code == "provider_not_configured"
    assert not desk.suppressions.entries


def test_a_batch_answers_each_by_itself_in_their_order() -> None:
    """One that cannot be written keeps no other back; of two of one address the last counts."""
    desk = Desk(FakeSuppressionsTable(an_entry("hard@example.com")))

    def fails(entry: Entry) -> None:
        if entry.email == ANN:
            raise DependencyError("DynamoDB", "PutItem")

    desk.suppressions.before = fails
    unreadable = RequestError([])
    words = [
        Word(JO, "first"),
        unreadable,
        Word(ANN, "x"),
        Word("hard@example.com", "x"),
        Word("b@example.com", "x", NOON),
        Word(JO, "last"),
    ]
    answers = lists.suppress_batch("acme", words, desk.deps)
    assert isinstance(answers[0], RequestError)
    assert answers[1] is unreadable
    assert isinstance(answers[2], DependencyError)
    assert isinstance(answers[3], Suppressed)
    assert answers[3].suppression.reason is Reason.HARD_BOUNCE
    assert isinstance(answers[4], RequestError)
    assert isinstance(answers[5], Suppressed)
    assert (answers[5].email, answers[5].suppression.why) == (JO, "last")
    assert len(desk.suppressions.reads) == 1


def test_a_batch_of_which_nothing_can_be_read_reads_nothing() -> None:
    """And marks nobody."""
    desk = Desk()
    assert len(lists.suppress_batch("acme", [RequestError([]), RequestError([])], desk.deps)) == 2
    assert not desk.marks.marked
    assert not desk.suppressions.reads


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_suppressed_is_not_found() -> None:
    """Nor what is only counted, was lifted or has expired."""
    counted = Entry(tenant_id="acme", email=ANN, soft_bounces={"r1": NOON})
    expired = replace(an_entry(), suppression=Suppression(reason=Reason.MANUAL, at=NOON - DAY, expires_at=NOON))
    desk = Desk(FakeSuppressionsTable(counted, expired))
    for email in (JO, ANN, "nobody@example.com"):
        for ask in (lists.get_suppression, lambda t, e, d: lists.lift_suppression(t, e, d, by=None, why=None)):
            with pytest.raises(RequestError) as refusal:
                ask("acme", email, desk.deps)
            assert refusal.value.code == "not_found"


def test_a_list_leaves_out_what_has_expired() -> None:
    """DynamoDB deletes it days later."""
    expired = replace(an_entry(), suppression=Suppression(reason=Reason.MANUAL, at=NOON - DAY, expires_at=NOON))
    desk = Desk(FakeSuppressionsTable(expired, an_entry(ANN)))
    page = lists.list_suppressions("acme", desk.deps, reason=None, limit=10, cursor=None)
    assert [entry.email for entry in page.entries] == [ANN]


def test_a_cursor_of_another_list_is_not_found() -> None:
    """As another tenant's."""
    desk = Desk()
    with pytest.raises(RequestError) as refusal:
        lists.list_suppressions("acme", desk.deps, reason=None, limit=10, cursor="another")
    assert refusal.value.code == "not_found"


# ── lift ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_lifted_is_mailed_again_and_says_who_and_why() -> None:
    """The answer shows it as it was."""
    desk = Desk(FakeSuppressionsTable(an_entry()))
    lifted = desk.lift()
    assert lifted.suppression.reason is Reason.HARD_BOUNCE
    assert desk.entry().in_force(NOON) is None
    assert desk.entry().lifted == Lifting(NOON, "arn:caller", "mailbox is back")


@pytest.mark.parametrize("reason", [Reason.MANUAL, Reason.HARD_BOUNCE])
def test_an_address_that_is_suppressed_again_meanwhile_is_not_said_to_be_lifted(reason: Reason) -> None:
    """By another caller or a bounce, while SES is asked; a second call lifts that too."""
    desk = Desk(FakeSuppressionsTable(an_entry()))
    again = Suppression(reason=reason, at=NOON + timedelta(seconds=1))

    def interrupt(entry: Entry) -> None:
        desk.suppressions.before = lambda _: None
        desk.suppressions.entries["acme", JO] = replace(entry, suppression=again, lifted=None, revision=entry.revision + 1)

    desk.suppressions.before = interrupt
    with pytest.raises(RequestError) as refusal:
        desk.lift()
    assert refusal.value.code == "suppressed_again"
    assert desk.entry().in_force(NOON) == again
    desk.clock.advance(DAY)
    assert desk.lift().suppression == again
    assert desk.entry().in_force(NOON + DAY) is None


def test_what_a_clock_ahead_of_ours_has_written_is_lifted_all_the_same() -> None:
    """The caller has seen it before it asked."""
    ahead = NOON + timedelta(milliseconds=500)
    told = Suppression(reason=Reason.HARD_BOUNCE, at=ahead + timedelta(milliseconds=1), expires_at=NOON + DAY)
    desk = Desk(FakeSuppressionsTable(replace(an_entry(reason=Reason.MANUAL, at=ahead), told=told)))
    assert desk.lift().suppression.at == ahead
    assert desk.entry().in_force(NOON) is None


def test_where_ses_is_cleared_nothing_is_left_to_do() -> None:
    """The tenant lets us."""
    desk = Desk(FakeSuppressionsTable(an_entry()))
    desk.account.clears = {JO: Cleared.GONE}
    assert desk.lift().ses_list == lists.SesList(may_hold=False, command=None)
    assert desk.account.cleared == [JO]


@pytest.mark.parametrize(
    ("clears", "asked", "may_hold"),
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
def test_ses_is_asked_for_the_spelling_that_it_keeps(clears: dict[str, Cleared], asked: list[str], may_hold: bool) -> None:  # noqa: FBT001 - a case's answer
    """Its list has the address as the mail had it, and compares upper and lower case."""
    desk = Desk(FakeSuppressionsTable(an_entry(spelling="Jo@Example.com")))
    desk.account.clears = clears
    lifted = desk.lift().ses_list
    assert desk.account.cleared == asked
    assert lifted.may_hold is may_hold
    assert lifted.command == (COMMAND.replace(JO, "Jo@Example.com") if may_hold else None)


def test_the_spelling_beneath_a_caller_s_word_is_asked_for_too() -> None:
    """SES put it on its list, whatever was said here since."""
    bounced = an_entry(spelling="JO@example.com").suppression
    desk = Desk(FakeSuppressionsTable(replace(an_entry(reason=Reason.MANUAL), told=bounced)))
    desk.account.clears = {"JO@example.com": Cleared.GONE, JO: Cleared.NOT_FOUND}
    assert not desk.lift().ses_list.may_hold


@pytest.mark.parametrize("reason", [Reason.MANUAL, Reason.SES_LIST, Reason.SOFT_BOUNCES, Reason.HARD_BOUNCE])
def test_what_ses_does_not_find_may_stand_there_in_another_spelling(reason: Reason) -> None:
    """Only what SES put on its list for this mail is known as it stands there; older entries do not have it."""
    spelling = None if reason in (Reason.MANUAL, Reason.HARD_BOUNCE) else JO
    desk = Desk(FakeSuppressionsTable(an_entry(reason=reason, spelling=spelling)))
    desk.account.clears = {JO: Cleared.NOT_FOUND}
    assert desk.lift().ses_list == lists.SesList(may_hold=True, command=COMMAND)


def test_where_ses_does_not_let_us_the_command_is_told() -> None:
    """Its own list may hold the address."""
    desk = Desk(FakeSuppressionsTable(an_entry()))
    assert desk.lift().ses_list == lists.SesList(may_hold=True, command=COMMAND)


@pytest.mark.parametrize("refusal", [NotSentError(ErrorInfo("config_unreadable", "")), DependencyError("KMS", "Decrypt")])
def test_a_config_that_cannot_be_used_keeps_nothing_from_being_lifted(refusal: Exception) -> None:
    """The rights at SES are never needed."""
    desk = Desk(FakeSuppressionsTable(an_entry()))
    desk.factory.refusal = refusal
    assert desk.lift().ses_list == lists.SesList(may_hold=True, command=COMMAND)
    assert desk.entry().in_force(NOON) is None


def test_ses_is_not_asked_where_little_time_is_left() -> None:
    """API Gateway answers the caller after 29 s, whatever we do then."""
    desk = Desk(FakeSuppressionsTable(an_entry()))
    desk.account.clears = {JO: Cleared.GONE}
    desk.factory.takes = ASK_BY + timedelta(seconds=1)
    assert desk.lift().ses_list.may_hold
    assert not desk.account.cleared


@pytest.mark.parametrize("row", [None, a_provider(active=None)])
def test_a_tenant_without_a_config_has_no_region_to_name(row: Provider | None) -> None:
    """The command goes to the one that its reader's own config names."""
    lifted = Desk(FakeSuppressionsTable(an_entry()), row).lift()
    assert lifted.ses_list.command == f"aws sesv2 delete-suppressed-destination --email-address={JO}"


def test_a_candidate_s_account_is_asked_where_there_is_no_other() -> None:
    """A tenant that is being onboarded brings its list along."""
    desk = Desk(FakeSuppressionsTable(an_entry()), a_provider(active=None, candidate=a_config(version=2)))
    desk.lift()
    assert desk.account.cleared == [JO]


@pytest.mark.parametrize("nasty", ["o'neil`${x}`&|!*@example.com", "--debug@example.com", "{a,b}#~=?@example.com"])
def test_the_command_is_safe_to_paste(nasty: str) -> None:
    """An address may hold what a shell takes for something else, or the command for an option."""
    desk = Desk(FakeSuppressionsTable(an_entry(nasty)))
    command = desk.lift(nasty).ses_list.command
    assert command is not None
    shown = subprocess.run(["/bin/sh", "-c", command.replace("aws", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ["sesv2", "delete-suppressed-destination", f"--email-address={nasty}", "--region", "eu-west-1"]


def test_ses_comes_first_so_that_a_lost_answer_can_be_asked_for_again() -> None:
    """After the other order a second call would answer 404, and nobody would learn the command."""
    desk = Desk(FakeSuppressionsTable(an_entry()))

    def lost(_: Entry) -> None:
        raise DependencyError("DynamoDB", "PutItem")

    desk.suppressions.before = lost
    with pytest.raises(DependencyError):
        desk.lift()
    desk.suppressions.before = lambda _: None
    assert desk.lift().ses_list.command == COMMAND

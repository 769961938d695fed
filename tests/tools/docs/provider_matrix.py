"""Generate the tables of docs/providers.md by running the code: `python -m tools.docs.provider_matrix` writes them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from botocore.exceptions import ClientError

from mailer.adapters.providers.credentials import AssumedRoles, RoleAssumption
from mailer.adapters.providers.ses_errors import read_error
from mailer.domain import lifecycle
from mailer.domain.delivery import MaybeSent, NotSent
from mailer.domain.errors import CODES, DependencyError, ErrorClass, ErrorInfo, NotSentError, RequestError
from mailer.domain.lifecycle import VerificationResult
from mailer.domain.provider import Blocked, Provider, ProviderStatus, StoredConfig, sending_state
from mailer.handlers.rest.problem import problem, problem_document
from mailer.services.providers.providers import put_config
from mailer.services.providers.verify import VerifyFailedError, verify_provider
from support.fakes.ports import NOON, PLATFORM, FakeClock, FakeProvidersTable
from support.fakes.providers import KEY, ROLE, ROLE_ARN, SENDER, Scene, a_scene, with_config

PAGE = Path(__file__).resolve().parents[3] / "docs" / "providers.md"
CREDENTIALS = {"access key": KEY, "role": ROLE}


@dataclass(frozen=True)
class Fault:
    """An error of AWS in a verify, as the adapters return it: the provider cannot be created, or the test mail is not accepted."""

    said: str
    found: NotSentError | DependencyError | NotSent | MaybeSent
    only_of: str = ""

    @property
    def code(self) -> str:
        return self.found.error.code


def by_ses(code: str, text: str = "", status: int = 400, only_of: str = "") -> Fault:
    answer = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return Fault(f"SES: `{code}`", read_error(answer, sender=SENDER["fromAddress"], region=SENDER["region"], size=0), only_of)


class _Sts:
    def assume_role(self, **_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole")


def by_sts() -> Fault:
    roles = AssumedRoles(_Sts, own_account=PLATFORM.account, platform=PLATFORM.name, clock=FakeClock())  # type: ignore[arg-type]
    try:
        roles.session(RoleAssumption("acme", 1, ROLE_ARN, "external-id-1"))
    except NotSentError as refusal:
        return Fault("STS: `AccessDenied`", refusal, "role")
    raise AssertionError("STS allowed the role")


UNVERIFIED = "Email address is not verified. The following identities failed the check in region EU-WEST-1: billing@acme.example"

FAULTS = (
    by_ses("InvalidClientTokenId", only_of="access key"),
    by_ses("AccessDenied"),
    by_ses("OptInRequired"),
    by_sts(),
    by_ses("MessageRejected", UNVERIFIED),
    by_ses("MailFromDomainNotVerifiedException"),
    by_ses("ConfigurationSetDoesNotExist"),
    by_ses("AccountSendingPausedException"),
    by_ses("ConfigurationSetSendingPausedException"),
    Fault("a ciphertext of another row", NotSentError(ErrorInfo("config_unreadable", "the stored config could not be decrypted"))),
    by_ses("Throttling", "Maximum sending rate exceeded."),
    by_ses("Throttling", "Daily message quota exceeded."),
    Fault("KMS: `ThrottlingException`", DependencyError("KMS", "Decrypt (ThrottlingException)")),
    by_ses("InternalFailure", status=500),
    by_ses("SomethingNew"),
)
"""Every error code of a verify."""

WHAT_MAIL_DOES = {
    ErrorClass.TENANT: "waits; goes out after a passing verify",
    ErrorClass.DEFERRED: "waits; is retried automatically",
    ErrorClass.FAILED: "fails",
    ErrorClass.UNKNOWN: "`unknown`; held or sent again, as the caller chose",
}


def states() -> Mapping[str, Provider | None]:
    """Return every state of a tenant's row."""
    scene = stored(KEY)
    unverified = scene.row
    active = lifecycle.verify(unverified, 1, VerificationResult(at=NOON))
    suspended = replace(
        active, status=ProviderStatus.SUSPENDED, error=ErrorInfo("credentials_denied", "denied"), faulty_requests=frozenset("123")
    )
    return {
        "no row": None,
        "unverified": unverified,
        "active": active,
        "disabled": lifecycle.disable(active, NOON),
        "disabled, never verified": lifecycle.disable(unverified, NOON),
        "suspended": suspended,
        "deleted": lifecycle.delete(active, NOON),
    }


def stored(body: Mapping[str, object]) -> Scene:
    scene = a_scene()
    put_config("acme", with_config(body, configurationSet="news"), scene.deps)
    return scene


# -- state × call --------------------------------------------------------------------------------------------------------


def calls_table() -> str:
    """Return the table of the state after each call in each state."""
    heads = ("tenant's provider", "mail", "PUT", "verify passes", "verify fails", "disable", "enable", "DELETE")
    return _table(heads, [[name, _mail(row), *(_after(row, act) for act in CALLS.values())] for name, row in states().items()])


def _mail(row: Provider | None) -> str:
    state = sending_state(row)
    if isinstance(state, StoredConfig):
        return "goes out"
    assert isinstance(state, Blocked)
    return f"{'waits' if state.waits else 'fails'}: `{state.error.code}`"


def _put(row: Provider | None) -> Provider:
    row = row or lifecycle.reserve("acme", b"x", NOON)
    config = states()["unverified"]
    assert config is not None
    assert config.candidate is not None
    return lifecycle.store(row, replace(config.candidate, version=row.versions + 1), NOON)


CALLS: Mapping[str, Callable[[Provider | None], Provider]] = {
    "PUT": _put,
    "verify passes": lambda row: lifecycle.verify(row, lifecycle.to_verify(row).version, VerificationResult(at=NOON)),
    "verify fails": lambda row: lifecycle.fail_verify(row, lifecycle.to_verify(row).version, ErrorInfo("throttled", "x"), NOON),
    "disable": lambda row: lifecycle.disable(row, NOON),
    "enable": lambda row: lifecycle.enable(row, NOON),
    "DELETE": lambda row: lifecycle.delete(row or lifecycle.reserve("acme", b"x", NOON), NOON),
}


def _after(row: Provider | None, act: Callable[[Provider | None], Provider]) -> str:
    try:
        after = act(row)
    except RequestError as refusal:
        return f"{problem(ErrorInfo(refusal.code, '')).status_code} `{refusal.code}`"
    beside = " + candidate" if after.candidate and after.active else ""
    return f"{after.status}{beside}"


# -- fault × credentials × state -----------------------------------------------------------------------------------------


def faults_table() -> str:
    """Return the table of the effects of each fault, in verify and in sending, for each kind of credentials."""
    heads = ("AWS says", "fault", "credentials", "verify answers", "record after it", "after 3 failing requests", "mail", "hint of verify")
    return _table(heads, [_fault_row(fault, kind) for fault in FAULTS for kind in CREDENTIALS if fault.only_of in ("", kind)])


def _fault_row(fault: Fault, kind: str) -> list[str]:
    answers, hints = set(), set()
    for name in ("unverified", "active", "disabled", "suspended"):
        scene = in_state(name, kind)
        before = scene.row
        status, hint = _verify(scene, fault)
        assert (scene.row.status, _bare(scene.row.active)) == (before.status, _bare(before.active)), "a failing verify changed the row"
        answers.add(status)
        hints.add(hint)
    [answer], [hint] = answers, hints
    mail = WHAT_MAIL_DOES[CODES[fault.code].error_class]
    return [fault.said, f"`{fault.code}`", kind, str(answer), "as it was", _after_requests(fault.code, kind), mail, hint]


def in_state(name: str, kind: str) -> Scene:
    """Return a scene with a config of this kind, in this state."""
    scene = stored(CREDENTIALS[kind])
    if name != "unverified":
        verify_provider("acme", scene.deps)
        state = states()[name]
        assert state is not None
        scene.set_row(status=state.status, error=state.error, faulty_requests=state.faulty_requests)
    return scene


def _bare(config: StoredConfig | None) -> StoredConfig | None:
    return config and replace(config, error=None)


def _verify(scene: Scene, fault: Fault) -> tuple[int, str]:
    if isinstance(fault.found, Exception):
        scene.provider_factory.refusal = fault.found
    else:
        scene.account.outcome = fault.found
    try:
        verify_provider("acme", scene.deps)
    except VerifyFailedError as failure:
        return 422, failure.error.hint
    except DependencyError as failure:
        document = problem_document(failure.error)
        return document["status"], document["hint"]
    raise AssertionError(f"{fault.code} passed as a success")


def _after_requests(code: str, kind: str) -> str:
    """Record the fault for three requests, as sending does for errors of the tenant's account; return the status."""
    rows = FakeProvidersTable(in_state("active", kind).row)
    if CODES[code].error_class is ErrorClass.TENANT:
        for request in ("r1", "r2", "r3"):
            rows.record_fault("acme", 1, request, ErrorInfo(code, "x"), rows.rows["acme"].verified_at)
    return str(rows.rows["acme"].status)


# -- the page ------------------------------------------------------------------------------------------------------------

TABLES = {"calls": calls_table, "faults": faults_table}


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([*heads], ["---"] * len(heads), *rows))


def filled(page: str) -> str:
    """Return the page with each table generated between its markers."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: made by tests/tools/docs/provider_matrix.py -->", f"<!-- {name} ends -->"
        head, found, rest = page.partition(begin)
        _, found_too, tail = rest.partition(end)
        assert found, f"{PAGE} lacks {begin}"
        assert found_too, f"{PAGE} lacks {end}"
        page = f"{head}{begin}\n\n{make()}\n\n{end}{tail}"
    return page


def lines_that_differ(page: str) -> Iterator[str]:
    now, wanted = page.splitlines(), filled(page).splitlines()
    yield from (f"{old!r} should be {new!r}" for old, new in zip(now, wanted, strict=False) if old != new)
    if len(now) != len(wanted):
        yield f"{len(now)} lines should be {len(wanted)}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

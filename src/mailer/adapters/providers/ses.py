"""Hand one message to a tenant's SES, once, and return the outcome.

`ses_operations` chooses the operation and the table of its errors. This module classifies exceptions without an answer: the message is
proven unsent if the connection shows that the request was not written completely, else the outcome is unknown. The exception's type proves
nothing: botocore also raises "failed to connect to proxy" after a reply was lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, ParamValidationError

from mailer.adapters.botocore_patches.connections import track_request
from mailer.adapters.providers.acting import NotActingError, TenantClients, acting_as
from mailer.adapters.providers.credentials import CredentialSource
from mailer.adapters.providers.ses_account import AccountQuestions
from mailer.adapters.providers.ses_errors import EXPIRED_SESSION, read_error
from mailer.adapters.providers.ses_operations import Operation, operation_for
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError
from mailer.domain.large_mail import upload_time
from mailer.domain.mime import Mail, Sender
from mailer.ports import AccountFacts, Cleared

_NEVER_BUILT = (ParamValidationError, NotActingError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SesProvider:
    """One tenant's SES account in one region; an `EmailProvider`."""

    sender: Sender
    region: str
    configuration_set: str | None
    credentials: CredentialSource
    clients: TenantClients
    questions: AccountQuestions
    name: str = field(default="ses", init=False)

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:
        """Call SES once with the message; never raises for errors of SES, STS or the network."""
        try:
            credentials = self.credentials.current()
            answer = self._attempt(mail, tags, credentials)
            if isinstance(answer, _ExpiredSession):
                renewed = self.credentials.renewed(credentials)
                answer = self._attempt(mail, tags, renewed) if renewed else answer
        except (NotSentError, DependencyError) as refusal:
            return NotSent(refusal.error)
        return answer.outcome if isinstance(answer, _ExpiredSession) else answer

    def account_facts(self) -> AccountFacts:
        """Query the account about itself, within a few seconds; never raises."""
        try:
            return self.questions.ask(self.credentials.current())
        except (NotSentError, DependencyError):
            return AccountFacts()

    def clear_suppression(self, email: str) -> Cleared:
        """Take an address off the account's own suppression list, where its policy lets us; see `ports.EmailProvider`."""
        try:
            return self.questions.clear_suppression(email, self.credentials.current())
        except (NotSentError, DependencyError):
            return Cleared.UNKNOWN

    def _attempt(self, mail: Mail, tags: Mapping[str, str], credentials: ReadOnlyCredentials) -> "Outcome | _ExpiredSession":
        operation = operation_for(mail)
        call = operation.call(self.clients, self.region)
        with acting_as(credentials), track_request(upload_time(len(mail.mime)).total_seconds()) as progress:
            try:
                answer = call(**operation.request(mail, self.configuration_set, tags))
            except ClientError as error:
                return self._read(error, mail, operation)
            except Exception as error:  # noqa: BLE001  # whatever breaks once the request is written leaves the message's fate open
                return self._lost(error, unsent=progress.proven_unsent)
        if message_id := answer.get("MessageId"):
            return Sent(message_id)
        return MaybeSent(ErrorInfo("outcome_unknown", f"SES in {self.region} accepted something without naming its MessageId"))

    def _read(self, error: ClientError, mail: Mail, operation: Operation) -> "Outcome | _ExpiredSession":
        outcome = read_error(error.response, sender=mail.mail_from, region=self.region, size=len(mail.mime), table=operation.errors)
        expired = isinstance(outcome, NotSent) and error.response.get("Error", {}).get("Code") in EXPIRED_SESSION
        return _ExpiredSession(outcome) if expired else outcome

    def _lost(self, error: Exception, *, unsent: bool) -> Outcome:
        """Classify an exception that was raised instead of an answer; only its type is shown, because its text may contain anything."""
        kind = type(error).__name__
        if isinstance(error, _NEVER_BUILT):
            return NotSent(ErrorInfo("unclassified", f"the request to SES was not sent ({kind})"))
        if unsent:
            return NotSent(ErrorInfo("dependency_unavailable", f"SES in {self.region} was not reached ({kind})", _UNREACHED))
        return MaybeSent(ErrorInfo("outcome_unknown", f"SES in {self.region} took the request and did not answer it readably ({kind})"))


@dataclass(frozen=True, slots=True)
class _ExpiredSession:
    """SES considers the credentials expired: one more attempt is made with new ones."""

    outcome: Outcome


_UNREACHED = (
    "Operator: the function could not connect to SES; mail goes out when it can. If it is one region only, SES may have no endpoint there:"
    " Tenant: check the config's region."
)

"""Hand one message to an SMTP server, on development stacks: Mailpit and its like, or a real server with TLS and a login.

    connect ─ EHLO ─ [STARTTLS] ─ [AUTH] ─ MAIL ─ RCPT … ─ DATA ─ the message ─ its last dot ─ reply
    └────────────── whatever fails here: proven not sent ─────────┘└─ no reply: nobody knows ──┘

All recipients or none, as SES does it.
"""

import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from uuid import uuid4

from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import ErrorInfo
from mailer.domain.mime import Mail, Sender
from mailer.domain.provider import SmtpConfig
from mailer.ports import AccountFacts, Cleared

TIMEOUT = 10.0
"""Seconds for each step of the conversation."""

_FORBIDDEN = tuple(
    map(
        ip_network,
        (
            "169.254.0.0/16",  # link-local: instance and task metadata
            "fe80::/10",  # link-local
            "fd00:ec2::/32",  # AWS's services on the instance: metadata is fd00:ec2::254
            "0.0.0.0/8",  # "this host"
            "::/128",
            "224.0.0.0/4",  # multicast
            "ff00::/8",
        ),
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")  # long out of use, but some stacks still take ::a.b.c.d for a.b.c.d

_LINE_START_DOT = re.compile(rb"^\.", re.MULTILINE)
_QUEUE_ID = re.compile(rb"queued as ([A-Za-z0-9._:@-]{1,128})")
_OUR_NAME = "localhost"  # to say EHLO with; smtplib would look up the machine's own name in DNS each time
_REPLY_OK, _REPLY_GO_ON, _REPLY_PERMANENT = 250, 354, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpProvider:
    """One tenant's SMTP server; an `EmailProvider`."""

    sender: Sender
    config: SmtpConfig
    timeout: float = TIMEOUT
    name: str = field(default="smtp", init=False)

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:  # noqa: ARG002  # SMTP has no tags
        """Send the message once; never raises for errors of the server or the network."""
        try:
            with _session(self.config, self.timeout) as smtp:
                _send_envelope(smtp, mail)
                return _send_data(smtp, mail, f"{uuid4()}@{mail.mail_from.rpartition('@')[2]}")
        except _RefusedError as refusal:
            return NotSent(refusal.error)
        except smtplib.SMTPAuthenticationError:
            return NotSent(ErrorInfo("credentials_invalid", "the SMTP server refused the login", _CHECK_LOGIN))
        except (OSError, smtplib.SMTPException) as error:
            return NotSent(ErrorInfo("dependency_unavailable", f"the SMTP server was not reached ({type(error).__name__})", _CHECK_SERVER))

    def clear_suppression(self, email: str) -> Cleared:  # noqa: ARG002  # the Protocol's
        """Tell that an SMTP server has no such list."""
        return Cleared.GONE

    def account_facts(self) -> AccountFacts:
        """Return no facts: an SMTP server has none."""
        return AccountFacts()


@contextmanager
def _session(config: SmtpConfig, timeout: float) -> Iterator[smtplib.SMTP]:
    """Connect, greet, begin TLS and log in as the config says; QUIT at the end if the server still listens."""
    kind = _PinnedTls if config.tls == "implicit" else _Pinned
    smtp = kind(config.host, config.port, timeout)
    try:
        smtp.ehlo_or_helo_if_needed()
        if config.tls == "starttls":
            smtp.starttls(context=ssl.create_default_context())
        if config.username is not None and config.password is not None:
            smtp.login(config.username, config.password.get_secret_value())
        yield smtp
    finally:
        with suppress(OSError, smtplib.SMTPException):
            smtp.quit()
        smtp.close()


def _send_envelope(smtp: smtplib.SMTP, mail: Mail) -> None:
    """Send MAIL and RCPT; if one is refused, the message is."""
    _expect(smtp.mail(mail.mail_from), "from_address_not_verified", "the SMTP server refused the sender")
    for recipient in mail.recipients:
        _expect(smtp.rcpt(recipient), "recipient_rejected", "the SMTP server refused a recipient")
    _expect(smtp.docmd("DATA"), "invalid_request", "the SMTP server refused the message", wanted=_REPLY_GO_ON)


def _send_data(smtp: smtplib.SMTP, mail: Mail, message_id: str) -> Outcome:
    """Add a Message-ID, as SES would, and send DATA."""
    body = _LINE_START_DOT.sub(b"..", mail.mime)
    try:
        smtp.send(f"Message-ID: <{message_id}>\r\n".encode("ascii"))
        smtp.send(body if body.endswith(b"\r\n") else body + b"\r\n")
        smtp.send(b".\r\n")
        code, text = smtp.getreply()
    except (OSError, smtplib.SMTPException) as error:
        return MaybeSent(ErrorInfo("outcome_unknown", f"the SMTP server took the message and did not answer ({type(error).__name__})"))
    _expect((code, text), "invalid_request", "the SMTP server refused the message")
    found = _QUEUE_ID.search(text)
    return Sent(found[1].decode("ascii") if found else message_id)


class _RefusedError(Exception):
    """The server refused the message, before or after DATA."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.code)
        self.error = error


def _expect(reply: tuple[int, bytes], refused_as: str, message: str, *, wanted: int = _REPLY_OK) -> None:
    """Return on the wanted reply; a 5xx is a permanent refusal, anything else a transient one."""
    code = reply[0]
    if code in (wanted, wanted + 1):  # 251: will forward
        return
    if code >= _REPLY_PERMANENT:
        raise _RefusedError(ErrorInfo(refused_as, f"{message} ({code})"))
    raise _RefusedError(ErrorInfo("dependency_unavailable", f"{message} for now ({code})", _CHECK_SERVER))


class _Pinned(smtplib.SMTP):
    """Connects to the address that was looked up and checked, because a second look-up could return another one."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._address = harmless_address(host, port)
        super().__init__(host, port, _OUR_NAME, timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002  # smtplib's hook, as LMTP uses it
        return socket.create_connection((self._address, port), timeout)


class _PinnedTls(smtplib.SMTP_SSL, _Pinned):
    """The same with TLS from the first byte; the certificate is checked against the host's name."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._address = harmless_address(host, port)
        smtplib.SMTP_SSL.__init__(self, host, port, _OUR_NAME, timeout=timeout, context=ssl.create_default_context())


def harmless_address(host: str, port: int) -> str:
    """Look up a host once; return its first address, if none of its addresses leads to metadata or link-local services.

    Raises:
        OSError: the name has no address.
    """
    addresses = [str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if any(map(_is_forbidden, addresses)):
        raise _RefusedError(ErrorInfo("provider_not_active", "the SMTP host leads to an address that is not allowed", _CHECK_HOST))
    return addresses[0]


def _is_forbidden(text: str) -> bool:
    return any(address in network for address in _meanings(ip_address(text)) for network in _FORBIDDEN)


def _meanings(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Yield an address and every IPv4 address that it is translated or tunnelled to."""
    yield address
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            yield address.ipv4_mapped
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield address.teredo[1]
        if address in _NAT64 or (address in _COMPATIBLE and not address.is_loopback):
            yield IPv4Address(int(address) & 0xFFFFFFFF)


_CHECK_LOGIN = "Tenant: correct the username and password of the SMTP config."
_CHECK_SERVER = "Tenant: check host, port and tls of the SMTP config, and that the server runs; mail goes out when it answers."
_CHECK_HOST = "Tenant: use another SMTP host; addresses of metadata and link-local services are not allowed."

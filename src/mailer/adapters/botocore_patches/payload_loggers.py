"""Keep libraries from logging payloads, at whatever level their loggers are set."""

import logging

PAYLOAD_LOGGERS = (
    "botocore.auth",  # session tokens, in the canonical request
    "botocore.endpoint",  # whole requests: recipients and bodies
    "botocore.parsers",  # whole answers: the credentials of sessions, parked bodies
    "aws_lambda_powertools.event_handler.api_gateway",  # the bodies of API calls: secrets and mails
)
"""Loggers that at DEBUG write payloads."""


def silence_payload_loggers() -> None:
    """Disable those loggers in this process; a level would be undone by whoever turns on debugging next."""
    for name in PAYLOAD_LOGGERS:
        logging.getLogger(name).disabled = True

"""Disable the loggers of libraries that write payloads, whatever their level."""

import logging

PAYLOAD_LOGGERS = (
    "botocore.auth",  # session tokens, in the canonical request
    "botocore.endpoint",  # whole requests: recipients and bodies
    "botocore.parsers",  # whole answers: the credentials of sessions, parked bodies
    "aws_lambda_powertools.event_handler.api_gateway",  # the bodies of API calls: secrets and mails
)
"""Loggers that at DEBUG write payloads."""


def silence_payload_loggers() -> None:
    """Disable those loggers in this process; a level would be overridden when debugging is turned on."""
    for name in PAYLOAD_LOGGERS:
        logging.getLogger(name).disabled = True

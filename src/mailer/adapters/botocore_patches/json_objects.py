"""Reject successful answers that are not JSON objects; botocore reads them as objects without members."""

from http import HTTPStatus
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError


class NoObjectError(BotoCoreError):
    """A service that answers JSON objects answered something else, with a success status."""

    fmt = "the answer to {operation} is no JSON object"


def require_json_objects(client: BaseClient) -> None:
    """Make a client of a JSON service fail on an unreadable answer, which botocore reads as one without members.

    Otherwise an item would seem not to exist, and a tenant to have no provider.
    """
    require: Any = _require
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"before-parse.{service}", require, unique_id="mailer.insist_on_objects")


def _require(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == HTTPStatus.OK and operation_model.output_shape is not None:
        body = response_dict["body"].strip()
        if not (body.startswith(b"{") and body.endswith(b"}")):
            raise NoObjectError(operation=operation_model.name)

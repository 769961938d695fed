"""Code samples for the call of a form: a curl command and a Python program."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

_END = "END"


def curl(url: str, region: str, tenant_id: str, request: Mapping[str, Any]) -> str:
    """Return a curl command that sends the request and signs it (curl 7.75 or later)."""
    body = json.dumps(request, indent=2, ensure_ascii=False)
    return (
        f"curl {shlex.quote(f'{url}/tenants/{tenant_id}/messages')} \\\n"
        f"  --aws-sigv4 {shlex.quote(f'aws:amz:{region}:execute-api')} \\\n"
        '  --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \\\n'
        '  ${AWS_SESSION_TOKEN:+-H "x-amz-security-token: $AWS_SESSION_TOKEN"} \\\n'
        f"  -H 'Content-Type: application/json' --data-binary @- <<'{_END}'\n{body}\n{_END}"
    )


def python(url: str, tenant_id: str, request: Mapping[str, Any]) -> str:
    """Return a Python program that sends the request with `mailer_client`."""
    return (
        "from mailer_client import MailClient\n\n"
        f"request = {_literal(request)}\n"
        f"mail = MailClient({url!r})\n"
        f"queued = mail.send({tenant_id!r}, request)\n"
        f"print(mail.wait({tenant_id!r}, queued.request_id).status)\n"
    )


def _literal(value: Any, indent: int = 0) -> str:
    """Format JSON as a Python literal."""
    inner = "    " * (indent + 1)
    if isinstance(value, Mapping) and value:
        lines = [f"{inner}{key!r}: {_literal(each, indent + 1)},\n" for key, each in value.items()]
        return "{\n" + "".join(lines) + "    " * indent + "}"
    if isinstance(value, list) and value:
        return "[\n" + "".join(f"{inner}{_literal(each, indent + 1)},\n" for each in value) + "    " * indent + "]"
    return repr(value)

"""Run MiniStack, patched where AWS behaves differently: `python -P emulator.py`, under MiniStack's own interpreter.

`aws:PrincipalArn` of a role's session is the ARN of the role (IAM user guide, global condition keys); MiniStack returns the session's.
Reading, updating and deleting one event source mapping each require their own right (service authorization reference, AWS Lambda);
MiniStack requires the right to list them for the first and none for the others. A raw message sent by SES v2's SendEmail requires
ses:SendRawEmail, as AWS's error messages show (github.com/nodemailer/nodemailer/issues/1734); MiniStack requires ses:SendEmail. Only raw
messages are sent by v2 here.

A function's code is unpacked once instead of once per process: its 60 MB in 3,000 files took most of a cold start.
"""

import hashlib
import runpy
import tempfile
import threading
import zipfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ministack.core import (  # type: ignore[import-not-found]  # in an environment of its own
    iam_actions,
    iam_evaluator,
    lambda_runtime,
)
from ministack.services import ses, ses_v2  # type: ignore[import-not-found]

MAPPING_ACTIONS = {"GET": "GetEventSourceMapping", "PUT": "UpdateEventSourceMapping", "DELETE": "DeleteEventSourceMapping"}

_resolve = iam_evaluator._resolve_condition_key
_lambda_action = iam_actions._lambda_action
_rest_action = iam_actions._match_rest_action
_parse_raw_mime = ses._parse_raw_mime

LOOKED_AT = 65_536  # characters of base64, a multiple of four


def resolve(key: str, context: Any) -> Any:
    """Resolve a condition key as AWS does."""
    value = _resolve(key, context)
    if key.lower() == "aws:principalarn" and isinstance(value, str) and ":assumed-role/" in value:
        _, partition, _, _, account, session = value.split(":", 5)
        return f"arn:{partition}:iam::{account}:role/{session.split('/')[1]}"
    return value


def lambda_action(method: str, path: str) -> Any:
    """Name the action of a call to Lambda as AWS does."""
    _, _, mapping = path.partition("/event-source-mappings/")
    return MAPPING_ACTIONS.get(method) if mapping else _lambda_action(method, path)


def rest_action(service: str, *call: Any) -> Any:
    """Name the action of a call to a REST service as AWS does."""
    action = _rest_action(service, *call)
    return "SendRawEmail" if (service, action) == ("ses", "SendEmail") else action


def parse_raw_mime(raw: Any) -> Any:
    """Parse only the first part of a raw message, with its header: parsing 40 MB would block the emulator for two seconds.

    The rest is not needed; the proxy in front keeps the bytes.
    """
    return _parse_raw_mime(raw[:LOOKED_AT])


_unpacked: dict[str, Path] = {}
_unpacking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class SharedZip(zipfile.ZipFile):
    """A code package that all processes of a function read from one folder; none writes there (on AWS it is read-only)."""

    def namelist(self) -> list[str]:
        """List the files, unless they are already checked and unpacked."""
        return [] if self._digest() in _unpacked else super().namelist()

    def extractall(self, path: Any = None, *_: Any, **__: Any) -> None:
        """Replace an empty folder by a link to the unpacked files."""
        digest = self._digest()
        with _unpacking[digest]:
            if digest not in _unpacked:
                folder = Path(tempfile.mkdtemp(prefix="unpacked-"))
                super().extractall(folder)
                _unpacked[digest] = folder
        Path(path).rmdir()
        Path(path).symlink_to(_unpacked[digest], target_is_directory=True)

    def _digest(self) -> str:
        assert self.filename
        return hashlib.blake2b(Path(self.filename).read_bytes()).hexdigest()


if __name__ == "__main__":
    lambda_runtime.zipfile = SimpleNamespace(**{**vars(zipfile), "ZipFile": SharedZip})
    ses._parse_raw_mime = ses_v2._parse_raw_mime = parse_raw_mime
    iam_actions._match_rest_action = rest_action
    iam_actions._lambda_action = lambda_action
    iam_evaluator._resolve_condition_key = resolve
    runpy.run_module("ministack", run_name="__main__", alter_sys=True)

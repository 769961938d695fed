"""Run MiniStack with what AWS does differently: `python -P emulator.py`, under MiniStack's own interpreter.

`aws:PrincipalArn` of a role's session is the ARN of the role (IAM user guide, global condition keys); MiniStack gives the session's.
"""

import runpy
from typing import Any

from ministack.core import iam_evaluator  # type: ignore[import-not-found]  # in an environment of its own

_resolve = iam_evaluator._resolve_condition_key


def resolve(key: str, context: Any) -> Any:
    """Answer a condition key as AWS does."""
    value = _resolve(key, context)
    if key.lower() == "aws:principalarn" and isinstance(value, str) and ":assumed-role/" in value:
        _, partition, _, _, account, session = value.split(":", 5)
        return f"arn:{partition}:iam::{account}:role/{session.split('/')[1]}"
    return value


if __name__ == "__main__":
    iam_evaluator._resolve_condition_key = resolve
    runpy.run_module("ministack", run_name="__main__", alter_sys=True)

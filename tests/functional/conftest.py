"""The stack of `template.yaml` in moto, with the functions' environment."""

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache

import pytest
from moto import mock_aws
from moto.core import models as moto_core
from moto.kms import models as moto_keys

from mailer.settings import settings
from support.aws import tables
from support.wire_rules import Breach, watched

# moto creates an RSA key for each KMS key, also for those that need none.
moto_keys.generate_private_key = cache(moto_keys.generate_private_key)
# moto registers 1,300 URL patterns for the package requests, by which nothing here calls AWS.
moto_core.RESPONSES_METHODS = []

REGION = "eu-central-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_SESSION_TOKEN": "testing"}


@pytest.fixture(autouse=True)
def breaches(request: pytest.FixtureRequest) -> Iterator[list[Breach]]:
    """Fail a test with calls that AWS would refuse although the emulator accepts them; a test that intends one removes it from the list."""
    with nullcontext([]) if request.node.get_closest_marker("unwatched") else watched() as found:
        yield found
    assert not found, "\n".join(map(str, dict.fromkeys(found)))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """Create every resource, set the environment and clear all caches; yield the variables."""
    with _stack(monkeypatch) as environment:
        yield environment


@pytest.fixture(scope="module")
def shared_aws() -> Iterator[Mapping[str, str]]:
    """Yield one stack for a module whose tests leave no data in it."""
    with pytest.MonkeyPatch.context() as monkeypatch, _stack(monkeypatch) as environment:
        yield environment


@contextmanager
def _stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        environment = tables.create_stack_resources()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        forget_caches()
        yield environment
    forget_caches()


def forget_caches() -> None:
    """Clear the process's caches: settings and what `wiring` built."""
    settings.cache_clear()
    if importlib.util.find_spec("mailer.wiring"):
        for built in vars(importlib.import_module("mailer.wiring")).values():
            if hasattr(built, "cache_clear"):
                built.cache_clear()

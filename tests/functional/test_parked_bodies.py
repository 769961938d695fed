"""Waiting bodies in the private bucket."""

from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from mailer import wiring
from mailer.adapters.s3.parked_bodies import S3ParkedBodies
from mailer.domain.errors import DependencyError

BODY = '{"tenantId":"acme","requestId":"r1","message":{"subject":"Grüße"}}'


@pytest.fixture
def bodies(aws: Mapping[str, str]) -> S3ParkedBodies:
    assert aws["ATTACHMENTS_BUCKET"]
    return wiring.parked_bodies()


def objects(bodies: S3ParkedBodies) -> list[str]:
    found: Any = boto3.client("s3").list_objects_v2(Bucket=bodies._bucket)
    return [entry["Key"] for entry in found.get("Contents", [])]


def test_a_body_is_fetched_as_it_was_parked(bodies: S3ParkedBodies) -> None:
    """Byte for byte."""
    assert bodies.fetch(bodies.park("acme", "r1", BODY)) == BODY


def test_the_key_has_the_tenant_and_the_request(bodies: S3ParkedBodies) -> None:
    """The consumer accepts no other key."""
    assert bodies.park("acme", "r1", BODY).startswith("parked/acme/r1/")


def test_parking_again_creates_no_second_object(bodies: S3ParkedBodies) -> None:
    """As after a crash in between."""
    assert bodies.park("acme", "r1", BODY) == bodies.park("acme", "r1", BODY)
    assert len(objects(bodies)) == 1


def test_other_content_with_the_same_id_overwrites_nothing(bodies: S3ParkedBodies) -> None:
    """The first request's body stays."""
    first = bodies.park("acme", "r1", BODY)
    bodies.park("acme", "r1", BODY.replace("r1", "r2"))
    assert bodies.fetch(first) == BODY


def test_a_discarded_body_is_missing(bodies: S3ParkedBodies) -> None:
    """That is a result, not an outage."""
    key = bodies.park("acme", "r1", BODY)
    bodies.discard(key)
    assert objects(bodies) == []
    with pytest.raises(KeyError):
        bodies.fetch(key)


def test_discarding_twice_is_no_error(bodies: S3ParkedBodies) -> None:
    """Two messages of an ended request may both discard it."""
    key = bodies.park("acme", "r1", BODY)
    bodies.discard(key)
    bodies.discard(key)


@pytest.mark.parametrize("key", ["", "attachments/acme/secret", "/parked/acme/r1/1.json", "other"])
def test_only_parked_bodies_can_be_fetched(bodies: S3ParkedBodies, key: str) -> None:
    """A pointer can name no upload."""
    if key:
        boto3.client("s3").put_object(Bucket=bodies._bucket, Key=key, Body=b"secret")
    with pytest.raises(KeyError):
        bodies.fetch(key)


def test_an_outage_is_a_dependency_error(bodies: S3ParkedBodies) -> None:
    """A body that cannot be read is not a missing body."""
    broken = S3ParkedBodies(bodies._client, "no-such-bucket")
    with pytest.raises(DependencyError, match=r"S3 did not complete PutObject \(NoSuchBucket\)"):
        broken.park("acme", "r1", BODY)
    with pytest.raises(DependencyError, match="GetObject"):
        broken.fetch("parked/acme/r1/1.json")
    with pytest.raises(DependencyError, match="DeleteObject"):
        broken.discard("parked/acme/r1/1.json")

"""A cipher with moto's KMS, and ways to damage its ciphertexts."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto import mock_aws

from mailer.adapters.providers.encryption import KmsConfigCipher

REGION = "eu-central-1"
ROW = ("acme", "ses", 7)
PLAINTEXT = b'{"secretAccessKey":"canary-secret"}'


@contextmanager
def a_cipher() -> Iterator[tuple[KmsConfigCipher, str]]:
    """Yield a cipher and the ARN of its key."""
    with mock_aws():
        kms = boto3.client("kms", region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")
        arn = kms.create_key()["KeyMetadata"]["Arn"]
        yield KmsConfigCipher(arn, kms), arn


def flips(sealed: bytes, bits: Iterator[int] | range) -> Iterator[bytes]:
    """Yield the ciphertext with one bit flipped; bits are counted from its start."""
    for bit in bits:
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def truncations(sealed: bytes, lengths: range) -> Iterator[bytes]:
    """Yield the ciphertext truncated at each length."""
    for length in lengths:
        yield sealed[:length]

"""A ciphertext can be decrypted only for its tenant, provider and version, and an outage of KMS is never blamed on a config."""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from mailer.adapters.providers.encryption import KmsConfigCipher
from mailer.domain.errors import DependencyError, NotSentError
from support.aws.cipher import PLAINTEXT, REGION, ROW, a_cipher, flips, truncations


@pytest.fixture(scope="module")
def cipher_and_key() -> Iterator[tuple[KmsConfigCipher, str]]:
    with a_cipher() as made:
        yield made


@pytest.fixture(scope="module")
def config_cipher(cipher_and_key: tuple[KmsConfigCipher, str]) -> KmsConfigCipher:
    return cipher_and_key[0]


@pytest.fixture(scope="module")
def sealed(config_cipher: KmsConfigCipher) -> bytes:
    return config_cipher.encrypt(*ROW, PLAINTEXT)


def kms_error(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Decrypt")


def test_decrypts_what_it_encrypted(config_cipher: KmsConfigCipher, sealed: bytes) -> None:
    """The plaintext is the same with the same context."""
    assert config_cipher.decrypt(*ROW, sealed) == PLAINTEXT


def test_encrypts_differently_each_time(config_cipher: KmsConfigCipher) -> None:
    """Equal configs have different ciphertexts, so the table does not show which tenants share a key."""
    assert config_cipher.encrypt(*ROW, PLAINTEXT) != config_cipher.encrypt(*ROW, PLAINTEXT)


def test_the_ciphertext_contains_neither_secret_nor_context(sealed: bytes) -> None:
    """The context must be known to decrypt it."""
    assert not any(word in sealed for word in (b"canary", b"acme", b"tenant_id"))


@pytest.mark.parametrize("row", [("evil", "ses", 7), ("acme", "smtp", 7), ("acme", "ses", 8), ("", "ses", 7), ("acme", "ses", 77)])
def test_swapped_rows_are_unreadable(config_cipher: KmsConfigCipher, sealed: bytes, row: tuple[str, str, int]) -> None:
    """A ciphertext moved to another tenant's row, or kept for another version, cannot be decrypted."""
    with pytest.raises(NotSentError) as refusal:
        config_cipher.decrypt(*row, sealed)
    assert refusal.value.error.code == "config_unreadable"


def test_a_ciphertext_of_another_key_is_unreadable(config_cipher: KmsConfigCipher) -> None:
    """Even with the right context."""
    kms = boto3.client("kms", region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")
    foreign = KmsConfigCipher(kms.create_key()["KeyMetadata"]["Arn"], kms)
    with pytest.raises(NotSentError) as refusal:
        config_cipher.decrypt(*ROW, foreign.encrypt(*ROW, PLAINTEXT))
    assert refusal.value.error.code == "config_unreadable"


def test_damaged_bytes_are_unreadable(config_cipher: KmsConfigCipher, sealed: bytes) -> None:
    """A flipped bit in any byte gives the one error: no crash, no wrong plaintext. `tests/prove` flips all the others."""
    for damaged in flips(sealed, range(3, len(sealed) * 8, 8)):
        assert_unreadable(config_cipher, damaged)


def test_truncated_bytes_are_unreadable(config_cipher: KmsConfigCipher, sealed: bytes) -> None:
    """A message truncated anywhere, also to nothing, gives the one error."""
    for damaged in truncations(sealed, range(0, len(sealed), 7)):
        assert_unreadable(config_cipher, damaged)


@pytest.mark.parametrize("tail", [b"\0", b"more", PLAINTEXT])
def test_trailing_bytes_are_unreadable(config_cipher: KmsConfigCipher, sealed: bytes, tail: bytes) -> None:
    """A message with anything after its end is not the stored one."""
    assert_unreadable(config_cipher, sealed + tail)


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"\x02", b"\x01\x80", b"\xff" * 600, os.urandom(528)])
def test_arbitrary_bytes_are_unreadable(config_cipher: KmsConfigCipher, rubbish: bytes) -> None:
    """They give the one error."""
    assert_unreadable(config_cipher, rubbish)


def assert_unreadable(config_cipher: KmsConfigCipher, damaged: bytes) -> None:
    with pytest.raises(NotSentError) as refusal:
        config_cipher.decrypt(*ROW, damaged)
    assert refusal.value.error.code == "config_unreadable"


OUTAGES = [
    kms_error("ThrottlingException", "Rate exceeded"),
    kms_error("KMSInternalException"),
    kms_error("DependencyTimeoutException"),
    kms_error("DisabledException", "key is disabled"),
    kms_error("KMSInvalidStateException", "key is pending deletion"),
    kms_error("NotFoundException", "no such key"),
    kms_error("KeyUnavailableException"),
    kms_error(
        "AccessDeniedException", "User: arn:aws:sts::1:assumed-role/send/x is not authorized to perform: kms:Decrypt on resource: arn"
    ),
    kms_error("UnrecognizedClientException", "The security token included in the request is invalid."),
    kms_error("ExpiredTokenException"),
    kms_error("AnErrorOfTomorrow"),
    EndpointConnectionError(endpoint_url="https://kms"),
    ReadTimeoutError(endpoint_url="https://kms"),
    NoCredentialsError(),
    ConnectionResetError(),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda e: e.response["Error"]["Code"] if isinstance(e, ClientError) else type(e).__name__)
def test_a_kms_outage_is_not_the_config_s_fault(config_cipher: KmsConfigCipher, sealed: bytes, outage: Exception) -> None:
    """Throttles, denials, key states and broken connections are `dependency_unavailable`: they suspend no tenant."""
    with kms_failing(config_cipher, outage), pytest.raises(DependencyError) as failure:
        config_cipher.decrypt(*ROW, sealed)
    assert failure.value.error.code == "dependency_unavailable"
    assert config_cipher.decrypt(*ROW, sealed) == PLAINTEXT


@pytest.mark.parametrize("outage", OUTAGES[:3], ids=str)
def test_an_encryption_needs_kms(config_cipher: KmsConfigCipher, outage: Exception) -> None:
    """If KMS is unavailable, it is also `dependency_unavailable`."""
    with kms_failing(config_cipher, outage), pytest.raises(DependencyError):
        config_cipher.encrypt(*ROW, PLAINTEXT)


@pytest.mark.parametrize(
    "answer",
    [
        kms_error("InvalidCiphertextException"),
        kms_error("IncorrectKeyException"),
        kms_error("ValidationException", "1 validation error detected: length must be less than or equal to 6144"),
    ],
    ids=lambda e: e.response["Error"]["Code"],
)
def test_kms_refusing_the_ciphertext_is_the_config_s_fault(config_cipher: KmsConfigCipher, sealed: bytes, answer: ClientError) -> None:
    """Every error of KMS about the encrypted data key is `config_unreadable`."""
    with kms_failing(config_cipher, answer):
        assert_unreadable(config_cipher, sealed)


def test_a_denial_of_only_one_ciphertext_is_the_config_s_fault(config_cipher: KmsConfigCipher, sealed: bytes) -> None:
    """KMS denies a data key that names an unknown key, but still decrypts what it decrypted before: no right is missing."""
    config_cipher.decrypt(*ROW, sealed)
    decrypt, other = config_cipher._kms._client.decrypt, config_cipher.encrypt("other", "ses", 1, PLAINTEXT)
    blobs: list[object] = []

    def denies_the_first(**request: object) -> object:
        blobs.append(request["CiphertextBlob"])
        if request["CiphertextBlob"] == blobs[0]:
            raise kms_error("AccessDeniedException")
        return decrypt(**request)

    with patch.object(config_cipher._kms._client, "decrypt", denies_the_first):
        assert_unreadable(config_cipher, sealed)
    assert config_cipher.decrypt("other", "ses", 1, other) == PLAINTEXT


def test_a_denial_before_any_decryption_is_an_outage(cipher_and_key: tuple[KmsConfigCipher, str], sealed: bytes) -> None:
    """A cipher that has never decrypted anything cannot distinguish the two, and blames no config."""
    warm, key_arn = cipher_and_key
    cold = KmsConfigCipher(key_arn, warm._kms._client)
    with kms_failing(cold, kms_error("AccessDeniedException")), pytest.raises(DependencyError):
        cold.decrypt(*ROW, sealed)


def kms_failing(config_cipher: KmsConfigCipher, error: Exception) -> patch:
    def fail(**_: object) -> None:
        raise error

    return patch.multiple(config_cipher._kms._client, decrypt=fail, generate_data_key=fail)


def test_an_outage_affects_all_tenants_and_suspends_none(config_cipher: KmsConfigCipher) -> None:
    """With KMS throttled, 50 tenants in 8 threads all see the outage; after it one with a damaged row is distinguished."""
    rows = {f"tenant-{n}": config_cipher.encrypt(f"tenant-{n}", "ses", 1, PLAINTEXT) for n in range(50)}
    rows["tenant-0"] = rows["tenant-1"]

    def open_row(tenant_id: str) -> str:
        try:
            config_cipher.decrypt(tenant_id, "ses", 1, rows[tenant_id])
        except (NotSentError, DependencyError) as failure:
            return failure.error.code
        return "opened"

    with ThreadPoolExecutor(8) as threads:
        with kms_failing(config_cipher, kms_error("ThrottlingException")):
            assert set(threads.map(open_row, rows)) == {"dependency_unavailable"}
        assert list(threads.map(open_row, rows)) == ["config_unreadable"] + ["opened"] * 49


@pytest.mark.parametrize("spoil", [lambda s: s, lambda s: s[:200], lambda s: s[:-1] + b"!"], ids=["sound", "truncated", "damaged"])
def test_logs_and_errors_contain_no_plaintext(
    config_cipher: KmsConfigCipher, sealed: bytes, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    """With every logger at DEBUG neither plaintext nor data key is logged, and a failure logs no error of its own."""
    keys: list[bytes] = []
    decrypt = config_cipher._kms._client.decrypt

    def noting(**request: object) -> object:
        answer = decrypt(**request)
        keys.append(answer["Plaintext"])
        return answer

    caplog.set_level(logging.DEBUG)
    said = ""
    with patch.object(config_cipher._kms._client, "decrypt", noting):
        try:
            config_cipher.decrypt(*ROW, spoil(sealed))
        except NotSentError as error:
            said = f"{error!r} {error} {error.__cause__!r}"
    written = said + "".join(f"{r.getMessage()} {r.exc_text}" for r in caplog.records)
    assert "canary" not in written
    assert not any(repr(key)[2:-1] in written or key.hex() in written for key in keys)
    assert [r for r in caplog.records if r.name.startswith("aws_encryption_sdk") and r.levelno > logging.DEBUG] == []

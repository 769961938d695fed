"""Encrypt and decrypt provider configs with the AWS Encryption SDK, bound to one KMS key and to their row."""

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    CreateAwsKmsKeyringInput,
    CreateDefaultCryptographicMaterialsManagerInput,
    CreateRequiredEncryptionContextCMMInput,
)
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from mailer.adapters.aws import readable
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_OF_THE_CIPHERTEXT = frozenset({"InvalidCiphertextException", "IncorrectKeyException", "ValidationException"})
"""KMS errors that are about the given encrypted data key; all others are about KMS or our rights."""

_DENIED = "AccessDeniedException"
"""Also KMS's answer to a data key of a KMS key that does not exist. If KMS still decrypts an earlier data key, the denial is of that kind;
in doubt it counts as an outage: a right that we lost must not count against every tenant."""


class KmsConfigCipher:
    """Encrypts configs under exactly one KMS key; nothing is decrypted for any other key, tenant, provider or version."""

    def __init__(self, key_arn: str, kms_client: "KMSClient") -> None:
        self._kms = _WatchedKms(kms_client)
        self._materials = _materials_manager(key_arn, self._kms)
        self._client = EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
            max_encrypted_data_keys=1,
        )

    def encrypt(self, tenant_id: str, provider: str, version: int, plaintext: bytes) -> bytes:
        """Encrypt a config; its encryption context is not part of the result.

        Raises:
            DependencyError: KMS failed.
        """
        context = _context(tenant_id, provider, version)
        with self._kms.watched("GenerateDataKey"):
            ciphertext, _ = self._client.encrypt(source=plaintext, materials_manager=self._materials, encryption_context=context)
            return bytes(ciphertext)

    def decrypt(self, tenant_id: str, provider: str, version: int, ciphertext: bytes) -> bytes:
        """Decrypt a config.

        Raises:
            NotSentError: config_unreadable: damaged, or encrypted for another tenant, provider, version or key.
            DependencyError: KMS did not do its part; nothing is known to be wrong with the config.
        """
        try:
            with self._kms.watched("Decrypt"):
                return self._decrypt(ciphertext, _context(tenant_id, provider, version))
        except DependencyError:
            raise
        except Exception as error:
            # Any error of a parser on damaged bytes: the SDK has no common type for them.
            raise NotSentError(ErrorInfo("config_unreadable", "the stored config could not be decrypted")) from error

    def _decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        source = io.BytesIO(ciphertext)
        stream = self._client.stream(mode="d", source=source, materials_manager=self._materials, encryption_context=dict(context))
        try:
            plaintext = bytes(stream.read())
        finally:
            # Without a footer, its close(), and so its finalizer, would raise again, into the logs.
            stream.footer = getattr(stream, "footer", None)
            stream.close()
        if source.tell() != len(ciphertext):
            raise ValueError("data after the end of the message")
        return plaintext


def _context(tenant_id: str, provider: str, version: int) -> dict[str, str]:
    return {"tenant_id": tenant_id, "provider": provider, "version": str(version)}


def _materials_manager(key_arn: str, kms: "_WatchedKms") -> Any:
    """Return the materials manager: a keyring of one key, and the whole encryption context is required for decryption."""
    providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    keyring = providers.create_aws_kms_keyring(CreateAwsKmsKeyringInput(kms_key_id=key_arn, kms_client=kms))
    underlying = providers.create_default_cryptographic_materials_manager(CreateDefaultCryptographicMaterialsManagerInput(keyring=keyring))
    return providers.create_required_encryption_context_cmm(
        CreateRequiredEncryptionContextCMMInput(
            underlying_cmm=underlying,
            required_encryption_context_keys=["tenant_id", "provider", "version"],
        )
    )


class _WatchedKms:
    """The keyring's KMS client; it keeps KMS's own error, because the Encryption SDK only passes its text on."""

    def __init__(self, client: "KMSClient") -> None:
        self.meta = client.meta
        self._client = client
        self._of_this_thread = threading.local()
        self._known_good: Mapping[str, Any] | None = None
        """The request of the last decryption that succeeded, or whose failure was not about KMS."""

    def generate_data_key(self, **request: Any) -> Any:
        """Call KMS."""
        with self._noting(), readable("KMS", "GenerateDataKey"):
            answer = _whole(self._client.generate_data_key(**request), "KeyId", "Plaintext", "CiphertextBlob")
        same = {name: request[name] for name in ("KeyId", "EncryptionContext")}
        self._known_good = {**same, "CiphertextBlob": answer["CiphertextBlob"]}
        return answer

    def decrypt(self, **request: Any) -> Any:
        """Call KMS."""
        with self._noting(), readable("KMS", "Decrypt"):
            answer = _whole(self._client.decrypt(**request), "KeyId", "Plaintext")
        self._known_good = request
        return answer

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._of_this_thread.error = error
            raise

    @contextmanager
    def watched(self, operation: str) -> Iterator[None]:
        """Raise DependencyError for any failure that KMS has caused."""
        self._of_this_thread.error = None
        try:
            yield
        except Exception as error:
            answer = self._of_this_thread.error
            if self._is_outage(answer):
                raise DependencyError("KMS", f"{operation} ({_name(answer)})") from error
            raise

    def _is_outage(self, error: Exception | None) -> bool:
        """Return whether KMS's error is not about the ciphertext: an outage, a throttle, a denial, the state of the key."""
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code")
            return code not in _OF_THE_CIPHERTEXT and not (code == _DENIED and self._decrypts())
        return isinstance(error, BotoCoreError | DependencyError | OSError) and not isinstance(error, ParamValidationError)

    def _decrypts(self) -> bool:
        """Return whether KMS still decrypts what it decrypted before."""
        if self._known_good is None:
            return False
        try:
            self._client.decrypt(**self._known_good)
        except (ClientError, BotoCoreError):
            return False
        return True


def _whole(answer: Any, *members: str) -> Any:
    """Return an answer if it has these members; without them the Encryption SDK would report a ciphertext that cannot be decrypted."""
    for member in members:
        if not answer[member]:
            raise ValueError(member)
    return answer


def _name(error: Exception | None) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__

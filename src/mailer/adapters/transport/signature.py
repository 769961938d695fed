"""Sign a request whose headers are known beforehand, with Signature Version 4."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from botocore.credentials import ReadOnlyCredentials

SESSION = "x-amz-security-token"
DATE = "x-amz-date"


@dataclass(frozen=True, slots=True)
class SigningScope:
    """What all signatures of one operation have in common."""

    region: str
    service: str
    headers: Sequence[tuple[str, str]]
    """Those that are signed and do not change, by name in lower case: `host` is among them."""

    def authorization(self, credentials: ReadOnlyCredentials, timestamp: str, body: bytes) -> str:
        """Return the header of a POST to the path `/`; `timestamp` is what `X-Amz-Date` says."""
        changing = [(DATE, timestamp), *([(SESSION, credentials.token)] if credentials.token else [])]
        headers = sorted([*self.headers, *changing])
        signed = ";".join(name for name, _ in headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers)
        canonical = f"POST\n/\n\n{lines}\n{signed}\n{sha256(body).hexdigest()}"
        scope = f"{timestamp[:8]}/{self.region}/{self.service}/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{credentials.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        return f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"

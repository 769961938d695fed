"""Every single-bit change and every truncation of an encrypted config gives the one error."""

from mailer.domain.errors import NotSentError
from support.aws.cipher import PLAINTEXT, ROW, a_cipher, flips, truncations


def test_no_mutation_is_decrypted_crashes_or_looks_like_an_outage() -> None:
    """More than 4000 mutations: each gives `config_unreadable`, and the original can still be decrypted."""
    with a_cipher() as (config_cipher, _):
        sealed = config_cipher.encrypt(*ROW, PLAINTEXT)
        outcomes: dict[str, int] = {}
        for damaged in (*flips(sealed, range(len(sealed) * 8)), *truncations(sealed, range(len(sealed)))):
            try:
                config_cipher.decrypt(*ROW, damaged)
            except NotSentError as refusal:
                outcomes[refusal.error.code] = outcomes.get(refusal.error.code, 0) + 1
        assert outcomes == {"config_unreadable": len(sealed) * 9}
        assert len(sealed) * 9 > 4000
        assert config_cipher.decrypt(*ROW, sealed) == PLAINTEXT

"""Tell whether SES's events of a tenant's mail come back to us, by what is marked on its config, and who must do what if not.

Without a configuration set it is `off`. Else:

    unproven ──an event──▶ proven      unproven, proven ──sent for SILENT_AFTER, no event──▶ silent ──an event──▶ proven
"""

from datetime import datetime, timedelta
from typing import Literal

from mailer.domain.onboarding import console_page
from mailer.domain.provider import StoredConfig

FeedbackState = Literal["off", "unproven", "proven", "silent"]

HEARD_EVERY = timedelta(minutes=10)
"""How often at most a version's events are marked on its row."""

UNHEARD_AFTER = 2 * HEARD_EVERY
"""How old the last mark must be before a mail counts as unheard: an event that comes sooner may have been left unmarked."""

SILENT_AFTER = timedelta(hours=1)
"""How long a version sends without an event until it is silent: SES reports within seconds what it accepts."""


def feedback_state(config: StoredConfig) -> FeedbackState:
    """Return whether events of a version's mail come back."""
    if config.configuration_set is None:
        return "off"
    if config.silent_since is not None:
        return "silent"
    return "unproven" if config.feedback_at is None else "proven"


def turns_silent(config: StoredConfig, sent_at: datetime) -> bool:
    """Whether a version that sends at this moment has sent for SILENT_AFTER without an event, and is not known to be silent."""
    unheard = config.unheard_since is not None and config.unheard_since <= sent_at - SILENT_AFTER
    return unheard and feedback_state(config) not in ("off", "silent")


def feedback_hint(config: StoredConfig) -> str | None:
    """Say who must do what so that events come; None where they do."""
    state = feedback_state(config)
    if state == "proven" or config.provider != "ses":
        return None
    if state == "off":
        return NO_CONFIGURATION_SET
    if config.account is None:
        return _NO_ACCOUNT
    return _UNPROVEN.format(look=_look(config)) if state == "unproven" else _SILENT.format(look=_look(config))


NO_CONFIGURATION_SET = (
    "Tenant: to learn what becomes of the mail, launch the template of GET …/provider/onboarding, store the config with the"
    " configurationSet that it makes, and verify."
)
_NO_ACCOUNT = (
    "Caller: verify this config (POST …/provider/verify). Events count only if they come from the account that sent; verify learns which"
    " that is, and has not learned it of this config."
)
_UNPROVEN = (
    "Caller: verify (POST …/provider/verify); its mail is one that SES reports. If this is still unproven a minute later, Tenant: {look}"
)
_SILENT = "Tenant: it has sent for an hour or more and nothing came back. {look}"


def _look(config: StoredConfig) -> str:
    sets = console_page(config.region, f"configuration-sets/{config.configuration_set}")
    rules = console_page(config.region, "rules", "events")
    return (
        f"In account {config.account}, {config.region}, see whether the configuration set {config.configuration_set} has an event"
        f" destination on the default event bus and it is enabled ({sets}), and whether the rule that passes its events on is there,"
        f" enabled, and has its role ({rules}); MatchedEvents and FailedInvocations of the rule in CloudWatch tell which of them it is."
    )

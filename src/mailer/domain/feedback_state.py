"""Decide from the marks on a tenant's config whether SES's events of its mail arrive, and what to do if they do not.

Without a configuration set the state is `off`. Otherwise:

    unproven ──an event──▶ proven      unproven, proven ──sent for SILENT_AFTER, no event──▶ silent ──an event──▶ proven
"""

from datetime import datetime, timedelta
from typing import Literal

from mailer.domain.onboarding import console_page
from mailer.domain.provider import StoredConfig

FeedbackState = Literal["off", "unproven", "proven", "silent"]

HEARD_EVERY = timedelta(minutes=10)
"""Minimum time between two marks of a version's events on its row."""

UNHEARD_AFTER = 2 * HEARD_EVERY
"""Minimum age of the last mark for a mail to count as unheard: an earlier event may have been left unmarked."""

SILENT_AFTER = timedelta(hours=1)
"""How long a version sends without an event until it is silent: SES reports accepted mail within seconds."""


def feedback_state(config: StoredConfig) -> FeedbackState:
    """Return whether events of a version's mail arrive."""
    if config.configuration_set is None:
        return "off"
    if config.silent_since is not None:
        return "silent"
    return "unproven" if config.feedback_at is None else "proven"


def turns_silent(config: StoredConfig, sent_at: datetime) -> bool:
    """Whether a version that sends now has sent for SILENT_AFTER without an event, and is not marked silent yet."""
    unheard = config.unheard_since is not None and config.unheard_since <= sent_at - SILENT_AFTER
    return unheard and feedback_state(config) not in ("off", "silent")


def feedback_hint(config: StoredConfig) -> str | None:
    """Return the hint that says who must do what for events to arrive; None if they do."""
    state = feedback_state(config)
    if state == "proven" or config.provider != "ses":
        return None
    if state == "off":
        return NO_CONFIGURATION_SET
    if config.account is None:
        return _NO_ACCOUNT
    return _UNPROVEN.format(look=_look(config)) if state == "unproven" else _SILENT.format(look=_look(config))


NO_CONFIGURATION_SET = (
    "Tenant: to receive SES's events of this mail, launch the template of GET …/provider/onboarding, store the config with the"
    " configurationSet that it creates, and verify."
)
_NO_ACCOUNT = (
    "Caller: verify this config (POST …/provider/verify). Events count only if they come from the sending account, which verify finds out;"
    " it is not known for this config."
)
_UNPROVEN = "Caller: verify (POST …/provider/verify); SES reports its test mail. If this is still unproven a minute later, Tenant: {look}"
_SILENT = "Tenant: mail was sent for an hour or more and no event of it arrived. {look}"


def _look(config: StoredConfig) -> str:
    sets = console_page(config.region, f"configuration-sets/{config.configuration_set}")
    rules = console_page(config.region, "rules", "events")
    return (
        f"In account {config.account}, {config.region}, check that the configuration set {config.configuration_set} has an enabled event"
        f" destination on the default event bus ({sets}), and that the rule that forwards its events exists, is enabled and has its role"
        f" ({rules}); the rule's metrics MatchedEvents and FailedInvocations in CloudWatch show which of them fails."
    )

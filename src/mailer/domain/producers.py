"""Which producers may send for which tenants; a queue's policy cannot decide that, as it does not see the body."""

from collections.abc import Mapping
from dataclasses import dataclass

ALL_TENANTS = "*"


@dataclass(frozen=True, slots=True)
class Producers:
    """The tenants of each producer, by its unique IAM id; if there are no rules, each may send for all tenants."""

    tenants: Mapping[str, frozenset[str]]

    @classmethod
    def parse(cls, text: str) -> "Producers":
        """Read `ID:tenant|tenant,ID:*`, the format of the template's parameter ProducerTenants; an id that is named twice gets both lists.

        Raises:
            ValueError: an entry has another form.
        """
        tenants: dict[str, frozenset[str]] = {}
        for entry in text.split(",") if text else ():
            principal, found, named = entry.partition(":")
            if not (principal and found and all(named.split("|"))):
                raise ValueError("ProducerTenants must be ID:tenant|tenant,ID:*")
            tenants[principal] = tenants.get(principal, frozenset()) | set(named.split("|"))
        return cls(tenants)

    def may_request(self, sender: str | None, tenant_id: str) -> bool:
        """Return whether a message's sender may send for a tenant; a sender of None is one of our own functions.

        `sender` is SQS's SenderId: `AIDA…` of an IAM user, `AROA…:session` of a role, the account id of a root user.
        """
        if sender is None or not self.tenants:
            return True
        allowed = self.tenants.get(sender.partition(":")[0], frozenset())
        return tenant_id in allowed or ALL_TENANTS in allowed

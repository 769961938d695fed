"""Restore the mark of tenants that have suppressions: sending looks up suppressions only of marked tenants."""

from collections.abc import Sequence

from mailer.ports import SuppressionMarks
from mailer_ops.ports import UnmarkedTenants


def mark_again(tenants: UnmarkedTenants, marks: SuppressionMarks) -> Sequence[str]:
    """Mark each tenant that has suppressions and is not marked; return them. May be repeated.

    Raises:
        DependencyError: DynamoDB did not answer; those before are marked.
    """
    return [tenant_id for tenant_id in tenants.unmarked() if marks.mark_suppressions(tenant_id)]

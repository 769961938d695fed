"""The documented policies of callers match the API's routes; tests/local tests them with IAM enforced."""

from fnmatch import fnmatchcase

import pytest

from support.aws.caller_policies import EXAMPLE_API, MAY, OVERVIEW, all_routes, filled, policy, policy_of_the_readme, routes


def allowed(name: str, tenant_id: str) -> set[str]:
    """Routes that a policy allows; IAM's `*` matches slashes too."""
    [statement] = policy(name)["Statement"]
    invoked = {route: f"{EXAMPLE_API}/v1/{'{}{}'.format(*filled(route, tenant_id))}" for route in all_routes()}
    return {route for route, arn in invoked.items() if any(fnmatchcase(arn, pattern) for pattern in statement["Resource"])}


@pytest.mark.parametrize("name", MAY)
def test_a_policy_allows_only_its_own_routes(name: str) -> None:
    """It allows no route of another tenant whose id has the same prefix."""
    assert allowed(name, "acme") == MAY[name]
    assert allowed(name, "acme2") == allowed(name, "acm") == set()


def test_the_policy_for_all_tenants_allows_only_the_list() -> None:
    """No policy for a tenant allows it, not even one for all of its routes."""
    assert allowed("overview", "acme") == OVERVIEW
    assert not any(fnmatchcase(f"{EXAMPLE_API}/v1/GET/tenants", f"{EXAMPLE_API}/v1/*/tenants/{whose}/*") for whose in ("acme", "*"))


def test_every_route_has_documented_callers() -> None:
    """A new route fails here until its callers are documented; the API's own description contains no tenant data."""
    assert set().union(*MAY.values()) == routes()
    assert all_routes() - routes() == {*OVERVIEW, "GET /openapi.json"}


def test_the_readme_shows_the_narrow_policy() -> None:
    """It allows neither reading a provider nor resolving a request."""
    assert policy_of_the_readme() == policy("sender")

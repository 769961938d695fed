"""The policies that the documentation gives to callers fit the API's routes; tests/local tries them where IAM is enforced."""

from fnmatch import fnmatchcase

import pytest

from support.aws.caller_policies import EXAMPLE_API, MAY, OVERVIEW, all_routes, filled, policy, policy_of_the_readme, routes


def allowed(name: str, tenant_id: str) -> set[str]:
    """The routes that a policy allows; a star of IAM takes slashes too."""
    [statement] = policy(name)["Statement"]
    invoked = {route: f"{EXAMPLE_API}/v1/{'{}{}'.format(*filled(route, tenant_id))}" for route in all_routes()}
    return {route for route, arn in invoked.items() if any(fnmatchcase(arn, pattern) for pattern in statement["Resource"])}


@pytest.mark.parametrize("name", MAY)
def test_a_policy_allows_its_own_routes_alone(name: str) -> None:
    """And none of them for a tenant whose id begins alike."""
    assert allowed(name, "acme") == MAY[name]
    assert allowed(name, "acme2") == allowed(name, "acm") == set()


def test_the_policy_for_all_tenants_allows_the_list_alone() -> None:
    """Which no policy for a tenant does, not even for all of its routes."""
    assert allowed("overview", "acme") == OVERVIEW
    assert not any(fnmatchcase(f"{EXAMPLE_API}/v1/GET/tenants", f"{EXAMPLE_API}/v1/*/tenants/{whose}/*") for whose in ("acme", "*"))


def test_every_route_is_somebody_s() -> None:
    """A new route fails here until it is said who may call it; the description of the API holds nothing of anybody's."""
    assert set().union(*MAY.values()) == routes()
    assert all_routes() - routes() == {*OVERVIEW, "GET /openapi.json"}


def test_the_readme_shows_the_narrow_policy() -> None:
    """What is copied first can neither read a provider nor resolve anything."""
    assert policy_of_the_readme() == policy("sender")

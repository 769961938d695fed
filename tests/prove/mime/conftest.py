"""Ten thousand examples for each property."""

from hypothesis import HealthCheck, settings

settings.register_profile("many", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("many")

"""Two sizes of search: a few hundred examples with every test run, ten thousand with `make prove`."""

from hypothesis import HealthCheck, settings

settings.register_profile("test", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("prove", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("test")

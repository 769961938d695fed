"""A few hundred examples per property; `make prove` runs ten thousand."""

from hypothesis import HealthCheck, settings

settings.register_profile("some", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("some")

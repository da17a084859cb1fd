"""Hypothesis without deadlines: the tests share their processors with others."""

from hypothesis import HealthCheck, settings

settings.register_profile("tapefs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tapefs")

"""How hard these tests look: no deadline, since a machine may be busy with something else."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "callbot_latency",
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("callbot_latency")

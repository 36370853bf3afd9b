"""How hard the generated tests try: `--hypothesis-profile=deep` tries forty times as often."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
# The same examples in every run: who changes nothing sees no test fail.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=100, suppress_health_check=_SLOW)
settings.register_profile("deep", deadline=None, max_examples=4000, suppress_health_check=_SLOW, print_blob=True)
# For scripts/mutants: whether a test fails matters there, not how small the example can be made.
settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    max_examples=25,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=_SLOW,
)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("suite")

"""The supervisor outlives its roles, however often one of them dies."""

from __future__ import annotations

import pytest

from edge_node.service import supervise


@pytest.mark.parametrize("deaths", [0, 1, 8, 1025, 10**6])
def test_a_role_that_dies_for_days_is_tried_again_and_ends_no_other(deaths: int) -> None:
    assert supervise.RESTART_FIRST_S <= supervise._pause(deaths) <= supervise.RESTART_CAP_S

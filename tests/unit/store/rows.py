"""Rows of the ledger as a study leaves them, for tests that ask what the ledger makes of many."""

from __future__ import annotations

from typing import Any


def study_row(key: str, *, at: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A study that was judged `at` (seconds since the epoch) and delivered."""
    return {
        "study_key": key,
        "study_uid": "2.25.1",
        "patient_key": "p",
        "state": "DELIVERED",
        "revision": 1,
        "complete": True,
        "modalities": "CT",
        "body_part": "HEAD",
        "order_priority": "",
        "calling_ae": "CT1",
        "recipe": "basic",
        "recipe_sha256": "0" * 64,
        "instances": 1,
        "bytes": 1,
        "first_received_at": at,
        "opened_at": at,
        "last_received_at": at,
        "triaged_at": at,
        **changes,
    }

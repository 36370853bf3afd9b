"""Fixtures shared by the unit tests: the store's, for whoever works on a real ledger."""

from __future__ import annotations

from tests.unit.store.conftest import clean_instance, received, store

__all__ = ["clean_instance", "received", "store"]

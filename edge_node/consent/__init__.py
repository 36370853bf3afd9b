"""Whether a patient's studies may leave: asked before every forward, answered fail-closed."""

from __future__ import annotations

from edge_node.consent.gate import source_for

__all__ = ["source_for"]

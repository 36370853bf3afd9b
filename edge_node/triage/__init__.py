"""Triage: which series, prepared how, judged by which model, on which device, and what is said about it.

Runs in the compute role on clean, pseudonymous objects only.
"""

from edge_node.triage.judge import Triage
from edge_node.triage.model import LoadedModel
from edge_node.triage.runner import check_onnxruntime_owner

__all__ = ["LoadedModel", "Triage", "check_onnxruntime_owner"]

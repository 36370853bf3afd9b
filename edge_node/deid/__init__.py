"""De-identification on entry. Only this room turns an `IdentifiedInstance` into a `DeidentifiedInstance`."""

from edge_node.deid.door import Deidentifier, peek_study_key
from edge_node.deid.pseudonym import patient_key, study_key_of

__all__ = ["Deidentifier", "patient_key", "peek_study_key", "study_key_of"]

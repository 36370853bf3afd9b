"""De-identification on entry. Only this room turns an `IdentifiedInstance` into a `DeidentifiedInstance`."""

from edge_node.deid.door import Deidentifier, peek_study_key
from edge_node.deid.pseudonym import Pseudonyms, instance_key_of, key_id_of, patient_key, patient_of, study_key_of

__all__ = [
    "Deidentifier",
    "Pseudonyms",
    "instance_key_of",
    "key_id_of",
    "patient_key",
    "patient_of",
    "peek_study_key",
    "study_key_of",
]

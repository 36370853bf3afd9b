"""Deidentifiers that remember, and how they are made to forget."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from edge_node.deid import Deidentifier, identity, needles, witness
from edge_node.deid.header import Headers
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import IdentifiedInstance
from tests.unit.deid.objects import KEY, RECIPE

NAMES = ["Beeblebrox^Zaphod", "Prefect^Ford", "Müller^Änne", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Head^Axial", ""]
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]

OWN = """FORMAT dicom
%values said
FIELD PatientComments

%header
REMOVE contains:Comments func:is_name
KEEP ImageComments
KEEP PatientComments
KEEP FilterType
REPLACE values:said var:patient_pseudonym
REPLACE CodeValue func:code_value
REPLACE CodeMeaning func:code_meaning
REPLACE ProtocolName func:code_meaning
KEEP (0019,"GEMS_ACQU_01",23)
KEEP (0019,"OWN",23)
"""


def forget(*all_of: Deidentifier) -> None:
    """As a worker is that has just been started."""
    for one in all_of:
        one._headers = Headers()
        one._pseudonyms._made.clear()
        one._pseudonyms._patients.clear()
    witness._received.update(witness._memory())
    witness._made.update(witness._memory())
    identity._plain.cache_clear()
    needles._needles_of.cache_clear()  # type: ignore[attr-defined]


def outcome(deidentifier: Deidentifier, instance: IdentifiedInstance) -> tuple[Any, ...]:
    try:
        done = deidentifier.deidentify(instance)
    except Quarantine as error:
        return error.code, error.message, error.study
    made = done.instance
    said = made.study_key, made.patient_key, made.pixel_risk, made.modality, made.body_part, made.order_priority
    return made.part10, done.identity.study, done.identity.instance, done.source_digest, done.derivation, *said


def private(ds: Dataset, creator: str, block: int, value: str) -> None:
    ds.add_new(0x00190000 | block, "LO", creator)
    ds.add_new(0x00190000 | block << 8 | 0x23, "DS", value)
    ds.add_new(0x00190000 | block << 8 | 0x24, "LO", "Zaphod")


BASIC = Deidentifier(RECIPE, KEY, version="0.1.0")

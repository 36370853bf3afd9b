"""What a rule may know about the object it works on."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_node.deid import wire
from edge_node.deid.charset import Charset
from edge_node.deid.pseudonym import Pseudonyms, patient_of
from edge_node.deid.vocabulary import words_of
from edge_node.deid.wire import Element, Node

CHARACTER_SET = 0x00080005
PATIENT_ID, ISSUER = 0x00100020, 0x00100021
STUDY_UID = 0x0020000D


@dataclass(slots=True)
class Scene:
    """One object under de-identification: its patient's shift and pseudonyms, its text, the names in it.

    `node` is the data set or item that is being worked on, `depth` 0 at the top level.
    """

    pseudonyms: Pseudonyms
    patient: str  # what pseudonyms and the shift hang on: issuer and ID, or the study when there is no ID
    patient_pseudonym: str
    shift_days: int
    names: frozenset[str]  # lower-case words of every person name in the object
    charset: Charset
    node: Node
    depth: int = 0
    big: bool = False  # binary values are big endian
    path: tuple[tuple[int, int], ...] = ()  # sequences around `node` with item numbers; only if a rule asks
    values: dict[str, frozenset[str]] = field(default_factory=dict)  # %values lists, lower case

    def text(self, element: Element) -> str:
        """The decoded value."""
        return self.charset.text(element.value)


def charset_of(node: Node, outer: Charset | None = None) -> Charset:
    """The character set that holds in a data set or, where an item names none, in the one around it."""
    if outer is not None and CHARACTER_SET not in node:
        return outer
    return Charset([term.strip() for term in wire.ascii_text(node, CHARACTER_SET).split("\\")])


_NAMING = frozenset(["PN", "LO", "UN", "SQ"])


def person_words(node: Node, outer: Charset | None = None) -> set[str]:
    """Lower-case words of at least two characters of all person names, at any depth."""
    charset = charset_of(node, outer)
    found: set[str] = set()
    for element in node.values():
        vr = element.vr
        if vr not in _NAMING:
            continue
        if element.items is not None:
            for item in element.items:
                found |= person_words(item, charset)
        elif vr == "PN" or wire.dictionary_vr(element.tag) == "PN":
            found.update(word for word in words_of(charset.text(element.value)) if len(word) > 1)
    return found


def set_scene(node: Node, pseudonyms: Pseudonyms) -> Scene:
    """Look at a whole data set and prepare what its rules need."""
    charset = charset_of(node)

    def text(tag: int) -> str:
        element = node.get(tag)
        return "" if element is None else charset.text(element.value).strip()

    issuer, patient_id, study = text(ISSUER), text(PATIENT_ID), wire.ascii_text(node, STUDY_UID)
    key = patient_of(issuer, patient_id, study)
    return Scene(
        pseudonyms=pseudonyms,
        patient=key,
        patient_pseudonym=pseudonyms.patient(issuer, patient_id, study),
        shift_days=pseudonyms.shift_days(key),
        names=frozenset(person_words(node)),
        charset=charset,
        node=node,
    )

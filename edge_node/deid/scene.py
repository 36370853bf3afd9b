"""What a rule may know about the object it works on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_node.deid import wire
from edge_node.deid.charset import Charset
from edge_node.deid.header import Header
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.deid.remembered import LONGEST, remembered
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

    def setting(self, looked_at: Iterable[int]) -> tuple[object, ...] | None:
        """All that what is made of a top-level element may depend on, beside itself: other elements are `looked_at`.

        None if it is too much to be kept.
        """
        others = [self.node[tag].value if tag in self.node else b"" for tag in looked_at]
        values = frozenset(self.values.items())
        texts = [self.patient, *self.names, *others, *[value for _, some in values for value in some]]
        if sum(map(len, texts)) > LONGEST:
            return None
        known = (self.patient, self.patient_pseudonym, self.shift_days, self.names, self.charset, self.big)
        return (*known, values, *others)

    def text(self, element: Element) -> str:
        """The decoded value."""
        return self.charset.text(element.value)


def charset_of(node: Node, outer: Charset | None = None) -> Charset:
    """The character set that holds in a data set or, where an item names none, in the one around it."""
    if outer is not None and CHARACTER_SET not in node:
        return outer
    return _charset(wire.ascii_text(node, CHARACTER_SET))


@remembered(64)
def _charset(terms: str) -> Charset:
    return Charset([term.strip() for term in terms.split("\\")])


_NAMING = frozenset(["PN", "LO", "UN", "SQ"])


def person_words(node: Node, outer: Charset | None = None) -> set[str]:
    """Lower-case words of at least two characters of all person names, at any depth."""
    return _person_words(node, charset_of(node, outer))


def _person_words(node: Node, charset: Charset) -> set[str]:
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


def _words_in(header: Header, charset: Charset) -> set[str]:
    """`person_words` of a data set that was read as `header`."""
    found = _person_words(header.rest, charset)
    for run in header.runs:
        words = run.words(charset)
        if words is None:
            words = frozenset(_person_words(run.node, charset))
            run.keep_words(charset, words)
        found |= words
    return found


def set_scene(node: Node, pseudonyms: Pseudonyms, header: Header | None = None) -> Scene:
    """Look at a whole data set and prepare what its rules need; `header` is how it was read."""
    charset = charset_of(node)

    def text(tag: int) -> str:
        element = node.get(tag)
        return "" if element is None else charset.text(element.value).strip()

    issuer, patient_id, study = text(ISSUER), text(PATIENT_ID), wire.ascii_text(node, STUDY_UID)
    key, pseudonym, shift = pseudonyms.of_patient(issuer, patient_id, study)
    return Scene(
        pseudonyms=pseudonyms,
        patient=key,
        patient_pseudonym=pseudonym,
        shift_days=shift,
        names=frozenset(_person_words(node, charset) if header is None else _words_in(header, charset)),
        charset=charset,
        node=node,
    )

"""Queries of the node's own reading list: matched on the ledger first, on digests then; identity is opened last.

Of each study the envelope is opened once to keep keyed digests of the numbers it is asked by; after that a query by a
number opens the envelopes of the studies it answers with, and a query for nothing of identity opens none. A key that
digests cannot answer (a name, a wildcard) opens all, so it is the site's to allow.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

from edge_node.domain.errors import EdgeNodeError
from edge_node.domain.reading_list import Entry, Routes
from edge_node.worklist.identity import WriteBackIdentity, as_received
from edge_node.worklist.matching import dataset_matches, values_of
from edge_node.worklist.own_list import (
    MWL_PATIENT,
    MWL_REQUEST,
    identify_mwl,
    identify_ups,
    modality_of,
    mwl_of,
    put_images,
    ups_of,
)
from edge_node.worklist.ups import PATIENT

IDENTITY = frozenset(
    {*PATIENT, *MWL_PATIENT, *MWL_REQUEST, "StudyInstanceUID", "ReferencedRequestSequence", "InputInformationSequence"}
)
NUMBERS = ("PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID", "AdmissionID")
IMAGES = "InputInformationSequence"
NOT_ANSWERED = frozenset({"SpecificCharacterSet", "TimezoneOffsetFromUTC"})


class CannotSearch(Exception):
    """The query has a key that only the opened identity of every study could answer; `keyword` says which."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens identity: `study` of the study alone, `whole` with its images. Both raise EdgeNodeError."""

    study: Callable[[str], WriteBackIdentity]
    whole: Callable[[str], WriteBackIdentity]


@dataclass(slots=True)
class Digests:
    """Keyed digests of the numbers of studies; the key dies with the process. Nothing can be read back from it."""

    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _known: dict[str, frozenset[bytes]] = field(default_factory=dict, repr=False)

    def of(self, keyword: str, value: str) -> bytes:
        return hmac.digest(self._key, f"{keyword}\x1f{value.strip()}".encode(), hashlib.sha256)

    def known(self, study_key: str, open_study: Callable[[str], WriteBackIdentity]) -> frozenset[bytes]:
        """The digests of a study, made at the first question."""
        if study_key not in self._known:
            identity = open_study(study_key)
            requested = identity.request(workitem=True)
            values = {keyword: {identity.text(keyword), str(requested.get(keyword) or "")} for keyword in NUMBERS}
            self._known[study_key] = frozenset(
                self.of(keyword, value) for keyword, texts in values.items() for value in texts if value
            )
        return self._known[study_key]

    def keep_only(self, study_keys: set[str]) -> None:
        """Forget the studies that left the list."""
        self._known = {key: digests for key, digests in self._known.items() if key in study_keys}


@dataclass(frozen=True, slots=True)
class Query:
    """A C-FIND identifier, and which of the two views it asks for."""

    keys: Dataset
    modality_worklist: bool
    station: str = ""

    def public(self) -> Dataset:
        """The keys that the ledger answers."""
        return _subset(self.keys, lambda keyword: keyword not in IDENTITY)

    def wants(self) -> frozenset[str]:
        """Keywords of identity that are asked for, as key or to be returned."""
        return frozenset(one.keyword for one in self.keys if one.keyword in IDENTITY)

    def asked_numbers(self, *, search: bool) -> list[tuple[str, list[str]]]:
        """(keyword, values) that digests answer. Raises CannotSearch for any other key unless `search` allows it."""
        found = []
        for keyword, values in _leaves(_subset(self.keys, lambda keyword: keyword in IDENTITY)):
            if keyword in NUMBERS and not any(set(value) & set("*?") for value in values):
                found.append((keyword, values))
            elif values != ["*"] and not search:
                raise CannotSearch(keyword)
        return found


def answers(
    query: Query,
    entries: list[Entry],
    routes: Routes,
    opener: Opener,
    digests: Digests,
    *,
    retrieve_ae: str,
    search: bool,
) -> Iterator[Dataset]:
    """The entries that match, in reading order, with what was asked for. Raises CannotSearch.

    A study whose identity was destroyed meanwhile is left out.
    """
    numbers, wants, public = query.asked_numbers(search=search), query.wants(), query.public()
    for entry in entries:
        made = mwl_of(entry, routes, query.station) if query.modality_worklist else ups_of(entry, routes)
        if not dataset_matches(made, public):
            continue
        try:
            if numbers:
                known = digests.known(entry.study_key, opener.study)
                if not all(any(digests.of(keyword, one) in known for one in values) for keyword, values in numbers):
                    continue
            if wants:
                _identify(made, entry, query, opener, wants, retrieve_ae)
        except EdgeNodeError:
            continue
        with as_received():
            if not wants or dataset_matches(made, query.keys):
                yield shown(made, query.keys, entry)


def _identify(
    made: Dataset, entry: Entry, query: Query, opener: Opener, wants: frozenset[str], retrieve_ae: str
) -> None:
    identity = (opener.whole if IMAGES in wants else opener.study)(entry.study_key)
    if query.modality_worklist:
        identify_mwl(made, identity)
        return
    identify_ups(made, identity)
    if IMAGES in wants:
        put_images(made, entry, identity, retrieve_ae)


def identify(made: Dataset, entry: Entry, keys: Dataset, opener: Opener, retrieve_ae: str) -> None:
    """Add to a UPS what `keys` ask of identity; without any key, all of it. Raises EdgeNodeError."""
    wants = frozenset(one.keyword for one in keys if one.keyword in IDENTITY) if len(keys) else IDENTITY
    if wants:
        _identify(made, entry, Query(keys, modality_worklist=False), opener, wants, retrieve_ae)


def shown(made: Dataset, keys: Dataset, entry: Entry) -> Dataset:
    """The keys of a query with the values of an entry, empty where it has none (PS3.4 C.4.1.1.3.2)."""
    told = projected(made, keys)
    told.SpecificCharacterSet = "ISO_IR 192"
    if "SOPInstanceUID" in made:
        told.SOPClassUID, told.SOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    for step in told.get("ScheduledProcedureStepSequence") or []:
        if "Modality" in step and not isinstance(step.Modality, str):
            step.Modality = modality_of(entry)
    return told


def projected(made: Dataset, keys: Dataset) -> Dataset:
    """`made` reduced to the attributes of `keys`; a sequence key with an item reduces the items as well."""
    told = Dataset()
    for key in keys:
        if key.keyword in NOT_ANSWERED:
            continue
        there = made.get(key.tag)
        if there is None:
            empty = deepcopy(key)
            empty.value = [] if key.VR == "SQ" else None
            told[key.tag] = empty
        elif key.VR == "SQ" and key.value and len(key.value[0]) and there.value:
            told[key.tag] = deepcopy(there)
            told[key.tag].value = [projected(item, key.value[0]) for item in there.value]
        else:
            told[key.tag] = deepcopy(there)
    return told


def _subset(keys: Dataset, wanted: Callable[[str], bool]) -> Dataset:
    made = Dataset()
    for one in keys:
        if wanted(one.keyword):
            made[one.tag] = one
    return made


def _leaves(keys: Dataset) -> Iterator[tuple[str, list[str]]]:
    """(keyword, values) of every key with a value, those in sequences included."""
    for one in keys:
        if one.VR == "SQ":
            for item in one.value or []:
                yield from _leaves(item)
        elif values := [value for value in _texts(one) if value]:
            yield one.keyword, values


def _texts(element: Any) -> list[str]:
    return [value.strip() for value in values_of(element)]

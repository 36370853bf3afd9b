"""Radiographs for tests: phantoms as objects, and a package that answers as it is told to."""

from __future__ import annotations

from functools import cache

from pydicom import Dataset

from edge_node.demo.chest import ChestPhantom, chest_phantom
from edge_node.demo.chestfilm import film_object
from edge_node.domain.study import CleanObject
from edge_node.triage.card_tables import FilmTable
from edge_node.triage.film import Film, FilmHeader, made_of, read_films
from tests.unit.triage.studies import PACKAGES, clean_object

CHEST = PACKAGES / "ref-cr-chest"
BODY_PART = PACKAGES / "ref-ct-body-part"
SPEC = FilmTable(size=256)


@cache
def phantom(seed: int, kind: str | None) -> ChestPhantom:
    """One film of 480 rows."""
    return chest_phantom(seed, kind=kind, rows=480)


def film(seed: int = 3, kind: str | None = None, *, modality: str = "CR", inverted: bool = False) -> Dataset:
    """A fresh object of a phantom."""
    return film_object(phantom(seed, kind), seed, modality=modality, inverted=inverted)


def header(ds: Dataset) -> FilmHeader:
    """Its header, as triage reads it."""
    (one,), unreadable = read_films([sealed(ds)])
    assert not unreadable
    return one


def sealed(ds: Dataset) -> CleanObject:
    """The object as triage gets it."""
    return clean_object(ds)


def made(ds: Dataset, spec: FilmTable = SPEC) -> Film:
    """The object prepared for a model."""
    return made_of(header(ds), spec)

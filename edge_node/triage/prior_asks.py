"""Which models ask for earlier studies of a patient, by the selection rules they judge with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge_node.domain.model import SPEAKING
from edge_node.domain.priors import PriorAsk
from edge_node.domain.study import CleanObject
from edge_node.triage.film import read_films
from edge_node.triage.film_judge import fitting_films
from edge_node.triage.headers import read_headers
from edge_node.triage.model import LoadedModel
from edge_node.triage.select import candidates


def asks(models: Iterable[LoadedModel], objects: Sequence[CleanObject]) -> list[PriorAsk]:
    """What the models want that would judge one of these objects; headers are read only if a model wants any."""
    wanting = [model for model in models if model.card.file.priors is not None and not model.broken()]
    if not wanting:
        return []
    headers, films = read_headers(objects)[0], read_films(objects)[0]
    found = []
    for model in wanting:
        table, file = model.card.file.priors, model.card.file
        film = model.card.slabs_input.film is not None
        if table is not None and (fitting_films(model.rule, films) if film else candidates(headers, model.rule)):
            name = f"{file.name} {file.version}"
            found.append(PriorAsk(name, table.max, table.within_days, table.rule, model.stage in SPEAKING))
    return found

"""The choice of a consent source by configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge_node.config.schema import Consent
from edge_node.consent.sources import AllowAll, CsvList, DenyAll
from edge_node.domain.consent import ConsentSource
from edge_node.domain.errors import Stop


def source_for(config: Consent) -> ConsentSource:
    """The source that `config` names. Raises `Stop` (``consent.no-csv-file``) when its settings are incomplete."""
    return _SOURCES[config.source](config)


def _csv(config: Consent) -> ConsentSource:
    if config.csv_file is None:
        raise Stop(
            "consent.no-csv-file",
            '[consent] source is "csv" but csv_file is not set',
            hint='set [consent] csv_file, or source = "deny-all"',
        )
    return CsvList(config.csv_file)


_SOURCES: Mapping[str, Callable[[Consent], ConsentSource]] = {
    "deny-all": lambda _: DenyAll(),
    "csv": _csv,
    "allow-all": lambda _: AllowAll(),
}

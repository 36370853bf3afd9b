"""The part of `edge-node doctor` that looks at the destinations of the writers which are no DICOM peers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from edge_node.config.addresses import is_loopback
from edge_node.config.destinations import Hl7
from edge_node.config.schema import Config
from edge_node.service.check import Check, guarded

CONNECT_S = 3.0


def writers(config: Config) -> Iterator[Check]:
    """One check for each such writer that `worklist.writers` names; none of them sends a result."""
    if "hl7" in config.worklist.writers:
        yield guarded("writer hl7", partial(_hl7, "hl7"), config)
    if "hl7_order" in config.worklist.writers:
        yield guarded("writer hl7_order", partial(_hl7, "hl7_order"), config)
    if "fhir" in config.worklist.writers:
        yield guarded("writer fhir", _fhir, config)
    if "ups_rs" in config.worklist.writers:
        yield guarded("writer ups_rs", _ups_rs, config)


def _hl7(section: str, config: Config) -> Check:
    from edge_node.worklist.mllp import reach
    from edge_node.worklist.write_hl7 import listener_of

    options: Hl7 = getattr(config, section)
    name, listener = f"writer {section}", listener_of(section, options, CONNECT_S)
    reach(listener)
    if listener.tls is None and not is_loopback(options.host):
        hint = f"set {section}.tls = true, or carry it through an encrypted tunnel"
        return Check(name, "warn", f"{listener} accepts connections, in the clear", hint)
    if not options.assigning_authority:
        detail = f"{listener} accepts connections; studies without an issuer of the Patient ID will wait"
        return Check(name, "warn", detail, f"set {section}.assigning_authority")
    return Check(name, "ok", f"{listener} accepts connections")


def _fhir(config: Config) -> Check:
    from edge_node.worklist.write_fhir import MEDIA_TYPE, server_of

    server = server_of(config.fhir, CONNECT_S)
    answer = server.ask("GET", "/metadata", media_type=MEDIA_TYPE)
    said = answer.content if isinstance(answer.content, dict) else {}
    if said.get("resourceType") != "CapabilityStatement":
        detail = f"{server} answers {answer.name} and no capability statement"
        return Check("writer fhir", "warn", detail, "check fhir.url: it ends where /metadata begins")
    version = str(said.get("fhirVersion"))
    if not version.startswith("4.0"):
        return Check("writer fhir", "fail", f"{server} speaks another FHIR than R4", "give fhir.url of its R4 endpoint")
    return Check("writer fhir", "ok", f"{server} speaks FHIR R4")


def _ups_rs(config: Config) -> Check:
    from edge_node.worklist.ups_rs import MEDIA_TYPE
    from edge_node.worklist.write_ups_rs import server_of

    server = server_of(config.ups_rs, CONNECT_S)
    # A search that nothing matches: no list of patients for a check.
    query = {"ProcedureStepLabel": "edge-node doctor", "limit": "1"}
    answer = server.ask("GET", "/workitems", query=query, media_type=MEDIA_TYPE)
    if not answer.success:
        return Check(
            "writer ups_rs", "warn", f"{server} answers {answer.name} to a search", "check ups_rs.url and credentials"
        )
    return Check("writer ups_rs", "ok", f"{server} answers a search for workitems")

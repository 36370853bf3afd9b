"""The options of the writers that speak neither DIMSE nor storage: HL7, FHIR, UPS-RS; part of the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edge_node.config.section import Port, Section


class Hl7(Section):
    """The HL7 listener that gets results when `worklist.writers` names hl7."""

    host: str = Field(default="", description="Host of the MLLP listener (RIS, EHR or interface engine).")
    port: Port = Field(default=2575, description="Its TCP port.")
    tls: bool = Field(default=False, description="Speak MLLP in TLS; else results cross the network in the clear.")
    ca_file: Path | None = Field(default=None, description="CA bundle that signed the listener's certificate.")
    client_cert: Path | None = Field(default=None, description="Client certificate (PEM) for mutual TLS.")
    client_key: Path | None = Field(default=None, description="Key of the client certificate.")
    assigning_authority: str = Field(
        default="", description="Namespace of Patient IDs (PID-3.4) of studies that name no issuer; empty: they wait."
    )
    sending_application: str = Field(default="EDGE-NODE", description="MSH-3.")
    sending_facility: str = Field(default="", description="MSH-4.")
    receiving_application: str = Field(default="", description="MSH-5.")
    receiving_facility: str = Field(default="", description="MSH-6.")
    processing_id: Literal["P", "T", "D"] = Field(
        default="P", description="MSH-11: P production, T training, D debugging."
    )
    acknowledgement: Literal["original", "enhanced"] = Field(
        default="original", description="original: wait for AA, AE or AR; enhanced: ask for CA, CE or CR (MSH-15 AL)."
    )


class Hl7Order(Hl7):
    """The HL7 listener for order changes when `worklist.writers` names hl7_order: a live model's flag raises the
    order of the study to stat at the RIS."""

    message: Literal["omi", "orm"] = Field(
        default="omi",
        description="omi: OMI^O23, the imaging order; orm: ORM^O01, for a RIS that knows only the older message.",
    )


class WebPeer(Section):
    """A web server we send to, and who we are to it."""

    url: str = Field(default="", description="Address; empty: not used.")
    user: str = Field(default="", description="User for HTTP basic authentication; empty: none.")
    password_file: Path | None = Field(default=None, description="File (0400) with the password of `user`.")
    token_file: Path | None = Field(default=None, description="File (0400) with a bearer token.")
    ca_file: Path | None = Field(default=None, description="CA bundle that signed the server's certificate.")
    client_cert: Path | None = Field(default=None, description="Client certificate (PEM) for mutual TLS.")
    client_key: Path | None = Field(default=None, description="Key of the client certificate.")


class Fhir(WebPeer):
    """The FHIR R4 server that gets results when `worklist.writers` names fhir."""

    url: str = Field(default="", description="Its base address (such as https://ehr.example/fhir/R4).")
    patient_system: str = Field(
        default="", description="Identifier system (URI) of Patient IDs that name no issuer; empty: those studies wait."
    )
    patient_systems: dict[str, str] = Field(
        default={}, description="Identifier system (URI) of Patient IDs by their issuer (0010,0021)."
    )
    accession_system: str = Field(default="", description="Identifier system (URI) of accession numbers; empty: none.")


class UpsRs(WebPeer):
    """The DICOMweb worklist that gets workitems when `worklist.writers` names ups_rs."""

    url: str = Field(default="", description="Its address up to /workitems (such as https://ris.example/dicom-web).")
    uid_parameter: Literal["workitem", "AffectedSOPInstanceUID", "none"] = Field(
        default="workitem", description="How the server wants our UID in /workitems?…; none: the UID without a name."
    )

"""The table [worklist] of the configuration: who tells the hospital of a result, and how far each may go."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from edge_node.config.section import AeTitle, Section
from edge_node.domain.modes import Mode


class Worklist(Section):
    """Write-back to the PACS."""

    mode: Literal["shadow", "information", "live"] = Field(
        default="shadow", description="shadow: write nothing; information: evidence only; live: all writers."
    )
    writers: list[Literal["evidence", "ups", "hl7", "fhir", "ups_rs", "hl7_order"]] = Field(
        default=["evidence", "ups"],
        description="Who tells the hospital: evidence (SR and key image), ups (workitem by UPS-Push), hl7 (ORU"
        " message), fhir (bundle), ups_rs (workitem by UPS-RS), hl7_order (order raised by OMI or ORM). None blocks"
        " another.",
    )
    pacs: str = Field(default="pacs", description="The peer ([peers.NAME]) that stores SR and key image.")
    ups: str = Field(default="ups", description="The peer that keeps the UPS worklist (UPS-Push).")
    calling_ae_title: AeTitle = Field(default="EDGENODE", description="AE title we use when we write back.")
    key_image: Literal["always", "flagged", "never"] = Field(
        default="always",
        description="When to send a Secondary Capture of the key image with the finding drawn in.",
    )
    further_objects: list[Literal["kos", "seg", "gsps"]] = Field(
        default=[],
        description="What else goes with a flagged finding: kos (key object selection), seg (the model's mark as a"
        " segmentation), gsps (its box over the original image); an archive that takes none gets none.",
    )
    commitment: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Storage commitment of the evidence: auto: read back what an archive does not commit; required:"
        " a human is called instead; off: its answer to the C-STORE is believed.",
    )
    commitment_wait_s: float = Field(
        default=600, gt=0, description="An archive that does not answer for so long is asked again, then read back."
    )
    late: Literal["mark", "withhold"] = Field(
        default="mark",
        description="A result that comes when somebody reads the study already: say so in it, or keep it.",
    )
    writer_modes: dict[str, str] = Field(
        default={}, description="A more cautious mode for a writer, by its name: shadow, information or live."
    )
    model_modes: dict[str, str] = Field(
        default={}, description="A more cautious mode for a model, by its name: shadow, information or live."
    )
    timeout_s: float = Field(default=30, gt=0, description="Network and DIMSE time-out of the write-back.")
    max_age_hours: float = Field(default=24, gt=0, description="Deliveries that fail for so long wait for a human.")

    @field_validator("writer_modes", "model_modes")
    @classmethod
    def _modes(cls, values: dict[str, str]) -> dict[str, str]:
        for name, mode in values.items():
            if mode not in list(Mode):
                raise ValueError(f"the mode of {name} is shadow, information or live")
        return values

    @field_validator("writer_modes")
    @classmethod
    def _known_writers(cls, values: dict[str, str]) -> dict[str, str]:
        known = get_args(get_args(cls.model_fields["writers"].annotation)[0])
        for name in values:
            if name not in known:
                raise ValueError(f"{name} is no writer; there are {', '.join(known)}")
        return values

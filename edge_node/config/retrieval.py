"""The options of `edge-node pull`: studies that the node asks an archive for; part of the schema."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from edge_node.config.destinations import WebPeer
from edge_node.config.section import AeTitle, AeTitleIfAny, Section

WINDOW = r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])"


class Pull(Section):
    """Studies that the node asks the PACS for (`edge-node pull`). They come in as all others do."""

    method: Literal["off", "move", "get", "web"] = Field(
        default="off",
        description="move: C-MOVE to our own AE title; get: C-GET; web: QIDO-RS and WADO-RS ([pull_web]); off: none.",
    )
    pacs: str = Field(default="pacs", description="The peer ([peers.NAME]) that is asked, for move and get.")
    calling_ae_title: AeTitle = Field(default="EDGENODE", description="AE title we ask with.")
    destination: AeTitleIfAny = Field(
        default="",
        description="AE title that the PACS shall move to, which it must know as ours; empty: receive.ae_title.",
    )
    studies_per_minute: float = Field(default=6, gt=0, description="At most so many studies are begun in a minute.")
    associations: int = Field(default=1, ge=1, le=8, description="Studies under way at once.")
    windows: list[str] = Field(
        default=[],
        description='Local times in which a study may be begun, such as "22:00-06:00"; empty: at any time.',
    )
    yield_s: float = Field(
        default=10, ge=0, description="No study is begun until nothing else was received for so long; 0: do not wait."
    )
    timeout_s: float = Field(default=60, gt=0, description="Network time-out, and that of a query.")
    study_timeout_s: float = Field(
        default=900, gt=0, description="Seconds without a word from the PACS after which a study is given up for now."
    )
    tries: int = Field(default=8, ge=1, description="A study that comes incomplete so often waits for a human.")
    max_age_days: float = Field(default=7, gt=0, description="What was not pulled after so long is given up.")

    @field_validator("windows")
    @classmethod
    def _windows(cls, value: list[str]) -> list[str]:
        for text in value:
            if not re.fullmatch(WINDOW, text) or text[:5] == text[6:]:
                raise ValueError('a window is written as "HH:MM-HH:MM" with two different times, such as "22:00-06:00"')
        return value


class Priors(Section):
    """Earlier studies that a model's card asks for; they are fetched from the PACS of [pull]."""

    wait_s: float = Field(
        default=30,
        ge=0,
        le=600,
        description="Triage of a study waits at most so long for priors that a model which speaks asks for; 0: none are"
        " fetched for models.",
    )


class PullWeb(WebPeer):
    """The DICOMweb server that is asked when `pull.method` is web."""

    url: str = Field(default="", description="Its address up to /studies (such as https://pacs.example/dicom-web).")

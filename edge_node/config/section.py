"""What every table of the configuration is."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ae_title(value: str) -> str:
    if not value.strip() or len(value) > 16 or "\\" in value or not value.isprintable() or not value.isascii():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters without backslash (PS3.5 6.2)")
    return value


def _ae_title_if_any(value: str) -> str:
    return _ae_title(value) if value else value


def _networks(value: list[str]) -> list[str]:
    for item in value:
        ip_network(item, strict=False)
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
AeTitleIfAny = Annotated[str, AfterValidator(_ae_title_if_any)]
Networks = Annotated[list[str], AfterValidator(_networks)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A table of the TOML file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

"""What every table of the configuration is."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ae_title(value: str) -> str:
    if not value.strip() or len(value) > 16 or "\\" in value or not value.isprintable() or not value.isascii():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters without backslash (PS3.5 6.2)")
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A table of the TOML file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

"""Programs of other makers that integration tests need: missing, they skip a test at a desk and fail it in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> str:
    """The path of an installed program."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed: apt-get install dcmtk dicom3tools orthanc"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found

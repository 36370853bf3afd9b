"""Programs of other makers that integration tests need: missing, they skip a test at a desk and fail it in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"  # Debian puts Orthanc where only root looks


def need(program: str) -> str:
    """The path of an installed program; DCMTK's own, not those of the same name in a virtual environment."""
    found = shutil.which(program, path=f"/usr/bin:{_PATH}")
    if found is None:
        missing(program)
    return found


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    message = f"{what} is not installed: apt-get install dcmtk dicom3tools orthanc orthanc-dicomweb systemd"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)

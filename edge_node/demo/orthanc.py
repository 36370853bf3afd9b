"""A local Orthanc as PACS archive or trainer of the demo, if one is installed: started, asked, stopped."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from edge_node.domain.errors import Stop
from edge_node.service.dimse import LOOPBACK

_PLACES = (Path("/usr/sbin/Orthanc"), Path("/usr/local/sbin/Orthanc"), Path("/usr/local/bin/Orthanc"))
_PLUGINS = (
    Path("/usr/share/orthanc/plugins"),
    Path("/usr/local/share/orthanc/plugins"),
    Path("/usr/lib/orthanc/plugins"),
)
_DICOMWEB = "libOrthancDicomWeb.so"
_HINT = "install Orthanc with its DICOMweb plugin (Debian: orthanc and orthanc-dicomweb), or leave --orthanc out"
EX_UNAVAILABLE = 69  # sysexits


@dataclass(frozen=True, slots=True)
class OrthancInstance:
    """One stored object: Orthanc's own id, SOP and Study Instance UID."""

    id: str
    sop_uid: str
    study_uid: str


def find_orthanc() -> Path | None:
    """The Orthanc program, or None."""
    found = shutil.which("Orthanc")
    return Path(found) if found else next((place for place in _PLACES if os.access(place, os.X_OK)), None)


def find_dicomweb() -> Path | None:
    """Orthanc's DICOMweb plugin, or None."""
    return next((folder / _DICOMWEB for folder in _PLUGINS if (folder / _DICOMWEB).exists()), None)


def _free_ports(count: int) -> list[int]:
    """So many different free loopback ports; held open together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind((LOOPBACK, 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


class LocalOrthanc:
    """Orthanc on free ports as a context manager; its data lie below `folder`.

    HTTP answers this machine only; DICOM answers the AE titles of `modalities` (AE title → (host, port)) from their
    hosts only, because Orthanc cannot be told which address to listen on. Raises Stop ``demo.orthanc-missing`` or
    ``demo.orthanc-start`` (exit code 69).
    """

    def __init__(
        self, folder: Path, *, ae_title: str = "ORTHANC", modalities: Mapping[str, tuple[str, int]] | None = None
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.dicom_port, self.http_port = _free_ports(2)
        self._modalities = modalities or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=f"http://{LOOPBACK}:{self.http_port}", trust_env=False, timeout=30)

    @property
    def stow_url(self) -> str:
        """The STOW-RS endpoint (…/studies)."""
        return f"http://{LOOPBACK}:{self.http_port}/dicom-web/studies"

    def configuration(self, plugin: Path) -> dict[str, Any]:
        """Orthanc's configuration as JSON. DefaultEncoding Utf8, or accents are lost."""
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "index"),
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {
                title: {"AET": title, "Host": host, "Port": port} for title, (host, port) in self._modalities.items()
            },
            "DefaultEncoding": "Utf8",
            "OverwriteInstances": False,
            "UnknownSopClassAccepted": True,
            "StableAge": 2,
            "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }

    def __enter__(self) -> Self:
        program, plugin = find_orthanc(), find_dicomweb()
        if program is None or plugin is None:
            what = "Orthanc" if program is None else "Orthanc's DICOMweb plugin"
            raise Stop("demo.orthanc-missing", f"{what} is not installed", hint=_HINT, exit_code=EX_UNAVAILABLE)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self.configuration(plugin), indent=1), encoding="utf-8")
        with (self.folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(program), str(file)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _wait(self, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            try:
                self._http.get("/system").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise Stop(
            "demo.orthanc-start",
            f"Orthanc did not come up within {seconds:g} s",
            hint="see orthanc.log in its folder",
            exit_code=EX_UNAVAILABLE,
        )

    def _stop(self) -> None:
        self._http.close()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def instances(self) -> list[OrthancInstance]:
        """Everything stored."""
        found = []
        for study in self._http.get("/studies", params={"expand": ""}).raise_for_status().json():
            uid = study["MainDicomTags"]["StudyInstanceUID"]
            for item in self._http.get(f"/studies/{study['ID']}/instances").raise_for_status().json():
                found.append(OrthancInstance(item["ID"], item["MainDicomTags"]["SOPInstanceUID"], uid))
        return found

    def part10(self, instance: OrthancInstance) -> bytes:
        """The stored object as a DICOM file."""
        return self._http.get(f"/instances/{instance.id}/file").raise_for_status().content

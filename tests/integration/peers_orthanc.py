"""A real Orthanc on free loopback ports, as PACS or as trainer. Skips the test where Orthanc is not installed."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.needed_tools import missing, need
from tests.ports import free_port

_ORTHANC = "/usr/sbin/Orthanc"
_DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
_PATIENCE = 30.0  # seconds


class Orthanc:
    """`with Orthanc(tmp_path) as peer`: `peer.url`, `peer.stow_url`, `peer.dicom_port`, `peer.get("/instances")`.

    `modalities` is Orthanc's DicomModalities; `extra` is merged over the configuration (the first of its
    RegisteredUsers is who `get` and `request` are).
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        modalities: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        need("Orthanc")
        if not Path(_DICOMWEB).exists():
            missing("Orthanc's DICOMweb plugin")
        self.ae_title = ae_title
        self.http_port, self.dicom_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.stow_url = f"{self.url}/dicom-web/studies"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._config: dict[str, Any] = {
            "Name": ae_title,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": ae_title,
            "DicomModalities": dict(modalities or {}),
            "DefaultEncoding": "Utf8",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [_DICOMWEB],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **(extra or {}),
        }
        users = dict(self._config["RegisteredUsers"]) if self._config["AuthenticationEnabled"] else {}
        self._login = ["Basic " + b64encode(f"{name}:{word}".encode()).decode() for name, word in users.items()][:1]

    def __enter__(self) -> Orthanc:
        config = self._folder / "orthanc.json"
        config.write_text(json.dumps(self._config))
        with (self._folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen([_ORTHANC, str(config)], stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.get("/system")
                return self
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        raise AssertionError((self._folder / "orthanc.log").read_text(errors="replace")[-2000:])

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(_PATIENCE)

    def request(self, path: str, *, method: str = "GET", body: bytes | None = None) -> bytes:
        """The answer's body; raises `urllib.error.HTTPError` unless the status is a success."""
        request = urllib.request.Request(self.url + path, method=method, data=body)
        for login in self._login:
            request.add_header("Authorization", login)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_PATIENCE) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        """The JSON answer of Orthanc's REST API."""
        return json.loads(self.request(path))

    def clear(self) -> None:
        """Delete all it holds."""
        for patient in self.get("/patients"):
            self.request(f"/patients/{patient}", method="DELETE")

    def instances(self) -> dict[str, bytes]:
        """The file of every instance held, by SOP Instance UID."""
        return {
            one["MainDicomTags"]["SOPInstanceUID"]: self.request(f"/instances/{one['ID']}/file")
            for one in self.get("/instances?expand")
        }

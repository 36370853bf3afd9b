"""DCMTK's archive, dcmqrscp, on a loopback port. Skips the test where DCMTK is not installed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.needed_tools import need

_PATIENCE_S = 15.0


@contextmanager
def dcmqrscp(folder: Path, files: Sequence[Path], *, port: int, node_port: int) -> Iterator[None]:
    """The archive PACS on `port` that has these files and moves to EDGENODE on `node_port`."""
    store, config = folder / "db", folder / "dcmqrscp.cfg"
    store.mkdir()
    config.write_text(
        f"""NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
node = (EDGENODE, 127.0.0.1, {node_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
PACS {store} RW (200, 1024mb) ANY
AETable END
"""
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([need("dcmqrscp"), "-c", str(config)], **quiet)
    try:
        send = [need("storescu"), "-R", "-aec", "PACS", "127.0.0.1", str(port), *map(str, files)]
        end = time.monotonic() + _PATIENCE_S
        while subprocess.run(send, env={**os.environ, "TCP_NODELAY": "1"}, check=False, **quiet).returncode:
            assert time.monotonic() < end, "dcmqrscp took nothing"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(10)

"""Memory, threads and handles of the processes of a node, as the kernel counts them (Linux)."""

from __future__ import annotations

import os
from pathlib import Path


def processes(leader: int) -> dict[int, dict[str, float]]:
    """Memory of its own and with its part of what it shares (PSS), in MB, threads and handles of every process of the
    node's session."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) != leader:
                continue
            said = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
            rollup = (entry / "smaps_rollup").read_text()
            private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private"))
            pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            handles = len(list((entry / "fd").iterdir()))
        except OSError:
            continue
        found[int(entry.name)] = {
            "MB": private / 1000,
            "PSS": pss / 1000,
            "threads": float(said["Threads"]),
            "handles": float(handles),
        }
    return found


def busy_s(process: int) -> float:
    """Seconds of processor time that a process has taken."""
    said = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(said[11]) + int(said[12])) / os.sysconf("SC_CLK_TCK")

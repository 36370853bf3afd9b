"""Masked images that wait for a human: shown as pictures, then let go. The admin looks, the node never decides this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sqlalchemy import Connection, select, update

from edge_node.config.schema import Config
from edge_node.deid.pixels import Picture
from edge_node.domain.errors import Quarantine
from edge_node.domain.study import CleanObject, Role, TaskState
from edge_node.service.node import Node, open_node
from edge_node.store import audit
from edge_node.store.tables import instance
from edge_node.store.tasks import requeue

SHOWN_FRAMES = 4


def write_pictures(config: Config, study_key: str, folder: Path) -> list[Path]:
    """Write the images of a study that wait for review as PNG into `folder` (0600; first to last frame side by side).

    They are masked, but nobody but the detector has looked yet: the folder is the admin's to guard and to empty.
    Raises Quarantine("pixels.nothing-to-review") when none waits, Quarantine("study.unknown").
    """
    node = open_node(config, Role.COMPUTE)
    waiting = _waiting(node, study_key)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = []
    for number, one in enumerate(waiting, 1):
        picture = Picture(one.read())
        frames = sorted({round(i * (picture.frames - 1) / (SHOWN_FRAMES - 1)) for i in range(SHOWN_FRAMES)})
        path = folder / f"{study_key}-{number:03}.png"
        path.touch(mode=0o600)
        Image.fromarray(np.hstack([picture.look(index, 0.0, 100.0) for index in frames])).save(path)
        paths.append(path)
    with node.database.write() as connection:
        audit.append(connection, f"{config.node.name}/admin", "pixels.shown", study_key, {"instances": len(paths)})
    return paths


def release_masked(config: Config, study_key: str) -> int:
    """Let the masked images of a study leave on a human's word; returns how many. Raises as `write_pictures`."""
    node = open_node(config, Role.COMPUTE)
    waiting = _waiting(node, study_key)
    with node.database.write() as connection:
        count = sum(_release(connection, one) for one in waiting)
        requeue(connection, study_key, steps=("forward",), states=(TaskState.DONE,))
        audit.append(connection, f"{config.node.name}/admin", "pixels.released", study_key, {"instances": count})
    return count


def _waiting(node: Node, study_key: str) -> list[CleanObject]:
    found = [one for one in node.clean.study(study_key).objects if one.pixel_work.startswith("review:")]
    if not found:
        with node.database.read() as connection:
            held = connection.execute(
                select(instance.c.pixel_work).where(instance.c.study_key == study_key, instance.c.pixel_risk != "")
            ).first()
        raise Quarantine(
            "pixels.nothing-to-review",
            "no masked image of this study waits for a human"
            + (f"; what is withheld could not be cleaned ({held.pixel_work})" if held else ""),
            hint="edge-node study show",
        )
    return found


def _release(connection: Connection, one: CleanObject) -> int:
    """Only the very bytes that were shown: an object that changed meanwhile stays."""
    changed = connection.execute(
        update(instance)
        .where(instance.c.sop_uid == one.sop_uid, instance.c.digest == one.digest)
        .values(pixel_risk="", pixel_work=one.pixel_work.replace("review:", "released:", 1))
    )
    return int(changed.rowcount)

"""Nodes and scenes of one patient, for functions that are asked one by one."""

from __future__ import annotations

from edge_node.deid.functions import Function
from edge_node.deid.pseudonym import Pseudonyms
from edge_node.deid.scene import Scene, set_scene
from edge_node.deid.wire import Element, Node
from tests.unit.deid.objects import KEY

NAMES = Pseudonyms(KEY)
NAME, NUMBER, TEXT = 0x00100010, 0x00100020, 0x00081030


def node_of(*elements: tuple[int, str, bytes]) -> Node:
    return {tag: Element(tag, vr, value) for tag, vr, value in elements}


def scene_of(name: bytes = b"Zorblax^Head", days: int = -7) -> Scene:
    scene = set_scene(node_of((NAME, "PN", name), (NUMBER, "LO", b"P-1 ")), NAMES)
    scene.shift_days = days
    return scene


def done(action: Function, value: bytes, tag: int = TEXT, vr: str = "LO", name: bytes = b"Zorblax^Head") -> object:
    return action(Element(tag, vr, value), scene_of(name))

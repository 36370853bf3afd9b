"""Whom an association asks what to do with its peer, and how it says that the peer broke the protocol."""

from __future__ import annotations

from typing import Any, Protocol

from edge_node.receive import command


class Fault(Exception):
    """The peer broke the protocol; `reason` is a stable word for logs and counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Desk(Protocol):
    """Whom an association asks; calls come from its own thread."""

    def refusal(self, association: Any) -> tuple[int, int, int] | None:
        """Before it is accepted: None, or result, source and reason of the A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def begin(self, association: Any) -> int | None:
        """At the first byte of an object: None to take it, or the status to answer when all of it was passed over."""

    def more(self, association: Any, size: int) -> int | None:
        """As the object grows to `size` bytes: as `begin`."""

    def no_memory(self, association: Any) -> int:
        """The object cannot be held: the status to answer."""

    def passed_over(self, size: int) -> None:
        """`size` bytes of a refused object were passed over. Raises Fault when the peer must be cut off."""

    def store(self, association: Any, context: Any, request: command.StoreRequest) -> int:
        """The object is whole and lies in `association.landing`: its status."""

    def fault(self, association: Any, reason: str) -> None:
        """The peer is about to be aborted."""

    def left(self, association: Any) -> None:
        """The association is over, though its connection may be there for a moment; may be called twice."""

    def closed(self, association: Any) -> None:
        """The connection is gone."""

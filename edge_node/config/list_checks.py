"""What must be true between the options of the reading list, of quality alerts, of routing and the others."""

from __future__ import annotations

from collections.abc import Iterator

from edge_node.config.addresses import is_loopback
from edge_node.config.contradiction import Contradiction
from edge_node.config.schema import Config


def list_contradictions(config: Config) -> Iterator[Contradiction]:
    """Everything wrong about `[reading_list]`, `[quality_alerts]` and `[routing]`."""
    yield from _reading_list(config)
    peer = config.quality_alerts.peer
    if peer and peer not in config.peers:
        known = ", ".join(sorted(config.peers)) or "none"
        yield Contradiction(("quality_alerts.peer", "peers"), f"there is no [peers.{peer}] (peers: {known})")
    for code in config.routing.names:
        if code not in config.routing.routes.values():
            yield Contradiction((f"routing.names.{code}", "routing.routes"), "names a reader that no route leads to")


def _reading_list(config: Config) -> Iterator[Contradiction]:
    options = config.reading_list
    if not options.port:
        return
    taken = {"tls.port": config.tls.port, "stow.port": config.stow.port, "status.port": config.status.port}
    if config.receive.plain:
        taken["receive.port"] = config.receive.port
    for key, port in taken.items():
        if port == options.port:
            yield Contradiction(("reading_list.port", key), f"is {key} already; choose another one")
    if config.worklist.mode != "live":
        yield Contradiction(
            ("reading_list.port", "worklist.mode"),
            f"would put studies in an order to read, which mode {config.worklist.mode} must not; needs mode live",
        )
    if not is_loopback(options.host):
        for key in ("calling_ae_titles", "allowed_addresses"):
            if not getattr(options, key):
                yield Contradiction(
                    (f"reading_list.{key}", "reading_list.host"),
                    "would show patients to anybody on the network; name who may ask",
                )

"""The part of `edge-node doctor` that looks at whom studies are pulled from; it asks for no patient."""

from __future__ import annotations

from datetime import datetime

from edge_node.config.schema import Config
from edge_node.config.tls import peer_of
from edge_node.service.check import Check
from edge_node.service.echo import echo

CONNECT_S = 3.0
NAME = "pull"


def pull(config: Config) -> Check:
    """Whether the archive answers us under the AE title we ask with."""
    options = config.pull
    if options.method == "off":
        return Check(NAME, "ok", "off: nothing is asked for")
    if options.method == "web":
        return _web(config)
    peer = peer_of(config.peers[options.pacs])
    seconds = echo(peer, options.calling_ae_title, CONNECT_S)
    detail = f"{peer.ae_title} answers {options.calling_ae_title} in {seconds * 1000:.0f} ms{_when(config)}"
    if options.method == "get":
        return Check(NAME, "ok", detail)
    destination = options.destination or config.receive.ae_title
    if config.receive.require_called_ae_title and destination != config.receive.ae_title:
        hint = (
            "name it in a [[deid.rules]], set receive.require_called_ae_title = false, or leave pull.destination empty"
        )
        return Check(NAME, "warn", f"{detail}; {destination} may be no AE title that we answer to", hint)
    if not config.receive.plain:
        return Check(NAME, "warn", f"{detail}; it must send by TLS, to port {config.tls.port}", "check it at the PACS")
    return Check(NAME, "ok", f"{detail}; it must know {destination} as this machine, port {config.receive.port}")


def _web(config: Config) -> Check:
    from edge_node.worklist.web import WebServer

    server = WebServer("pull_web", config.pull_web, NAME, CONNECT_S)
    # A search that nothing matches: no list of patients for a check.
    answer = server.ask("GET", "/studies", query={"StudyInstanceUID": "2.25.0"}, media_type="application/dicom+json")
    if not answer.success:
        return Check(NAME, "warn", f"{server} answers {answer.name} to a search", "check pull_web.url and credentials")
    return Check(NAME, "ok", f"{server} answers a search for studies{_when(config)}")


def _when(config: Config) -> str:
    from edge_node.service.pulling import in_window

    windows = config.pull.windows
    if not windows:
        return ""
    now = "now" if in_window(windows, datetime.now().astimezone()) else "not now"
    return f"; pulls {' and '.join(windows)}, {now}"

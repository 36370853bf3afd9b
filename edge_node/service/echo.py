"""C-ECHO to a peer (PS3.4 A): does it answer, and does it know us."""

from __future__ import annotations

import time

from edge_node.config.tls import tls_arguments, tls_problem
from edge_node.domain.errors import Retry
from edge_node.domain.status import Status, status_name
from edge_node.domain.worklist import Peer
from edge_node.service.dimse import AE, Verification, evt, no_delay


def echo(peer: Peer, calling_ae: str, timeout_s: float) -> float:
    """Seconds from connecting to the answer.

    Raises Retry: ``peer.unreachable`` (nothing listens), ``peer.tls-failed`` (no handshake), ``peer.rejected`` (it does
    not accept us) or ``peer.echo-failed``.
    """
    entity = AE(calling_ae)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    entity.add_requested_context(Verification)
    started = time.monotonic()
    association = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        tls_args=tls_arguments(peer),
        evt_handlers=[(evt.EVT_CONN_OPEN, no_delay)],
    )
    where = f"{peer.ae_title} at {peer.host}:{peer.port}"
    if not association.is_established:
        if association.is_rejected:
            raise Retry(
                "peer.rejected",
                f"{where} rejects associations from {calling_ae}",
                hint="let the peer know our AE title, address and port; check the peer's AE title",
            )
        if peer.tls and (why := tls_problem(peer, timeout_s)):
            raise Retry(
                "peer.tls-failed",
                f"{where}: the TLS handshake fails: {why}",
                hint="check the peer's port, tls_name, ca_file, client_cert and client_key of [peers]",
            )
        raise Retry("peer.unreachable", f"{where} does not answer", hint="check host, port and firewall")
    try:
        answer = association.send_c_echo()
        code = answer.get("Status")
    finally:
        association.release()
    if code != Status.SUCCESS:
        name = "no answer" if code is None else status_name(int(code))
        raise Retry("peer.echo-failed", f"{where} answered C-ECHO with {name}")
    return time.monotonic() - started

"""The C-STORE and C-ECHO SCP (PS3.4 A and B), on pynetdicom's public events and server classes.

Nothing CPU-bound happens in this process: each instance goes as bytes to a de-identifying worker, and Success is
answered only when the worker says that it is sealed, synced and committed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from socketserver import BaseServer
from typing import Any

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from edge_node.config.schema import Receive
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.status import Status
from edge_node.domain.study import IdentifiedInstance
from edge_node.receive.admission import Admission
from edge_node.store.intake import Receipt

log = structlog.get_logger()

MAX_PDU = 131_072  # larger PDUs only make the copies larger
LONGEST_PDU = 8 * MAX_PDU  # nobody may send data PDUs over MAX_PDU; an A-ASSOCIATE-RQ with 128 contexts fits too
RECV_BYTES = 262_144
LISTEN_BACKLOG = 128
LOOPBACK = "127.0.0.1"
# pynetdicom logs identifiers of queries by default; they are PHI.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.LOG_HANDLER_LEVEL = "none"

Accept = Callable[[IdentifiedInstance], Receipt]


class QuickSocket(AssociationSocket):
    """A socket that acknowledges at once and reads in large pieces.

    Senders with Nagle's algorithm on (Debian's DCMTK, pynetdicom) wait for our delayed ACK after every PDU; QUICKACK
    must be armed again before each read because the kernel disarms it. A peer that claims a PDU of gigabytes is not
    believed: an answer that is too short closes the connection.
    """

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > LONGEST_PDU:
            return bytearray()
        data, view_at = bytearray(nr_bytes), 0
        view, connection = memoryview(data), self.socket
        assert connection is not None
        while view_at < nr_bytes:
            if hasattr(socket, "TCP_QUICKACK"):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            read = connection.recv_into(view[view_at : view_at + RECV_BYTES])
            if not read:
                view.release()
                del data[view_at:]
                return data
            view_at += read
        return data


class _Handler(RequestHandler):
    def _create_association(self) -> Any:
        association = super()._create_association()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(self.ae.network_timeout)  # a peer that stops inside a PDU must not hold a thread
        # pynetdicom makes the socket itself; the subclass has the same state, so it may take its place.
        association.dul.socket.__class__ = QuickSocket
        return association


class _Server(ThreadedAssociationServer):
    request_queue_size = LISTEN_BACKLOG
    daemon_threads = True
    admission: Admission

    def shutdown(self) -> None:
        """Stop listening; pynetdicom's own version strikes the server off a list that only its start_server fills."""
        BaseServer.shutdown(self)
        self.server_close()

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        if self.admission.admits_address(client_address[0]):
            return True
        log.warning("association.refused", code="receive.address-not-allowed")
        return False


class StorageSCP:
    """The listening SCP. `accept` makes an instance durable or raises; `has_room` guards the disk reserve."""

    def __init__(self, config: Receive, accept: Accept, has_room: Callable[[], bool]) -> None:
        self._config = config
        self._accept = accept
        self._has_room = has_room
        self._admission = Admission(config)
        self._server: _Server | None = None
        self._busy = 0
        self._idle = threading.Condition()
        self._draining = False
        self.turned_away: dict[str, int] = {}

    @property
    def port(self) -> int:
        """The port in use (useful when the configuration says 0)."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        entity = AE(self._config.ae_title)
        entity.maximum_pdu_size = MAX_PDU
        entity.maximum_associations = self._config.max_associations
        entity.require_called_aet = self._config.require_called_ae_title
        entity.require_calling_aet = list(self._config.calling_ae_titles)
        entity.network_timeout = self._config.network_timeout_s
        entity.acse_timeout = self._config.network_timeout_s
        entity.dimse_timeout = self._config.network_timeout_s
        entity.add_supported_context(Verification)
        _Server.admission = self._admission
        self._server = entity.make_server(
            (self._config.host, self._config.port) if self._config.plain else (LOOPBACK, 0),
            ae_title=self._config.ae_title,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_REJECTED, self._on_rejected),
                (evt.EVT_C_ECHO, self._on_echo),
                (evt.EVT_C_STORE, self._on_store),
            ],
            server_class=_Server,
            request_handler=_Handler,
        )
        if not self._config.plain:
            self._server.server_close()  # pynetdicom's server cannot be made without its socket
            return
        threading.Thread(target=self._server.serve_forever, name="scp", daemon=True).start()

    def adopt(self, connection: Any, address: Any) -> None:
        """Serve a connection that another door (TLS) accepted and admitted."""
        assert self._server is not None
        self._server.process_request(connection, address)

    def admits_address(self, address: str) -> bool:
        """Whether a host may connect at all."""
        return self._admission.admits_address(address)

    def turn_away(self, reason: str) -> None:
        """Count a caller that another door refused; the first ones and every hundredth are logged."""
        with self._idle:
            count = self.turned_away[reason] = self.turned_away.get(reason, 0) + 1
        if count <= 10 or count % 100 == 0:
            log.warning("association.refused", reason=reason, count=count)

    def stop(self, drain_s: float) -> bool:
        """Take no new associations, let instances under way finish for up to `drain_s` seconds, then close.

        Returns whether everything under way was finished.
        """
        self._draining = True
        deadline = time.monotonic() + drain_s
        with self._idle:
            while self._busy and time.monotonic() < deadline:
                self._idle.wait(deadline - time.monotonic())
            finished = not self._busy
        if self._server is not None and self._config.plain:
            self._server.shutdown()
        return finished

    def _on_requested(self, event: evt.Event) -> None:
        association = event.assoc
        if self._draining:
            association.acse.send_reject(0x02, 0x01, 0x01)  # rejected-transient, service-user, no reason (PS3.8 9.3.4)
            association.kill()
            return
        proposed = association.requestor.primitive.presentation_context_definition_list
        association.acceptor.supported_contexts = self._admission.contexts_for(proposed)

    def _on_rejected(self, event: evt.Event) -> None:
        log.warning("association.rejected", calling_ae=str(event.assoc.requestor.ae_title).strip())

    def _on_echo(self, _event: evt.Event) -> int:
        return Status.SUCCESS

    def _on_store(self, event: evt.Event) -> int:
        with self._idle:
            self._busy += 1
        try:
            return self._store(event)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _store(self, event: evt.Event) -> int:
        request, requestor = event.request, event.assoc.requestor
        calling = str(requestor.ae_title).strip()
        dataset = request.DataSet.getvalue()
        if not self._has_room() or len(dataset) > self._config.max_object_mb * 1_000_000:
            log.warning("instance.refused", code="receive.out-of-resources", calling_ae=calling, bytes=len(dataset))
            return Status.OUT_OF_RESOURCES
        instance = IdentifiedInstance(
            dataset=dataset,
            transfer_syntax=str(event.context.transfer_syntax),
            sop_class=str(request.AffectedSOPClassUID),
            sop_instance=str(request.AffectedSOPInstanceUID),
            calling_ae=calling,
            called_ae=str(event.assoc.acceptor.ae_title).strip(),
            peer=_address(requestor.address),
            received_at=time.time(),
        )
        try:
            receipt = self._accept(instance)
        except Retry as error:
            log.warning("instance.refused", code=error.code, calling_ae=calling, bytes=len(dataset))
            full = error.code in ("spool.disk-full", "ledger.disk-full", "receive.busy", "ledger.busy")
            return Status.OUT_OF_RESOURCES if full else Status.PROCESSING_FAILURE
        except EdgeNodeError as error:
            log.warning("instance.refused", code=error.code, calling_ae=calling, bytes=len(dataset))
            return Status.PROCESSING_FAILURE
        log.debug("instance.received", study=receipt.study_key, state=str(receipt.received), code=receipt.code)
        return Status.SUCCESS


def _address(host: object) -> str:
    try:
        return str(ip_address(str(host)))
    except ValueError:
        return ""

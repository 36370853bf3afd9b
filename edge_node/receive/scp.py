"""The C-STORE and C-ECHO SCP (PS3.4 A and B), with MPPS and IAN: who is let in, what is taken, what is answered.

Nothing CPU-bound happens in this process: the bytes of each instance land in memory that a de-identifying worker
process reads, and Success is answered only when the worker says that it is sealed, synced and committed.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Collection
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AddressInformation, AssociationServer, RequestHandler

from edge_node.config.schema import Receive
from edge_node.domain.announcement import Command
from edge_node.domain.errors import EdgeNodeError, Retry
from edge_node.domain.status import Status
from edge_node.receive.admission import DISK_LOW, DRAINING, Admission, Pace, Places, Rejection
from edge_node.receive.announce import answer
from edge_node.receive.command import StoreRequest, uid_text
from edge_node.receive.commitment import MODEL, Committed, answer_to
from edge_node.receive.desk import Fault
from edge_node.receive.landing import Arrival, Budget, Landing
from edge_node.receive.tally import Tally
from edge_node.receive.upper_layer import MAX_PDU, StorageAssociation, check_library
from edge_node.receive.wire import Wire
from edge_node.store.receipt import Receipt

log = structlog.get_logger()
_told = logging.getLogger(__name__)

LISTEN_BACKLOG = 256
LOOPBACK = "127.0.0.1"
MOST_STRANGERS = 64  # connections that have not asked for an association yet; one more ends the oldest
LONGEST_TICK_S = 1.0
PLENTY = 1 << 30  # bytes above the watermark
ROOM_S = 0.1  # how long the disk is not asked again then
# pynetdicom logs identifiers of queries by default; they are PHI.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.LOG_HANDLER_LEVEL = "none"

Accept = Callable[[Arrival], Receipt]
FULL = ("spool.disk-full", "ledger.disk-full", "receive.busy", "ledger.busy")


class _Handler(RequestHandler):
    """Makes the association of one connection; as pynetdicom does it, with our own classes."""

    def _create_association(self) -> StorageAssociation:
        server = self.server
        association = StorageAssociation(self.ae, server.desk, Landing(server.desk.folder, server.desk.budget))
        association._server = server
        association.name = "AcceptorThread"
        tick_s = min(LONGEST_TICK_S, float(self.ae.network_timeout) / 4)
        association.set_socket(Wire(association, self.request, tick_s))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        association.bind(evt.EVT_C_ECHO, _on_echo)
        for event, command in ((evt.EVT_N_CREATE, Command.CREATE), (evt.EVT_N_SET, Command.SET)):
            association.bind(event, server.desk.announce, [command])
        association.bind(evt.EVT_N_EVENT_REPORT, server.desk.on_commitment)
        server.desk.arrived(association)
        return association


class _Server(AssociationServer):
    request_queue_size = LISTEN_BACKLOG
    desk: StorageSCP

    def shutdown(self) -> None:
        """Stop listening; pynetdicom's own version strikes the server off a list that only its start_server fills."""
        super(AssociationServer, self).shutdown()
        self.server_close()

    def service_actions(self) -> None:
        """pynetdicom collects garbage here, every sixtieth connection."""

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                log.error("association.refused", code="receive.no-handles")  # noqa: TRY400  the number says it all
                time.sleep(0.2)  # the connection is still waiting: do not spin on it
            raise
        return connection, address

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        return self.desk.admits(client_address[0])

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        log.exception("association.failed")


def _on_echo(_event: evt.Event) -> int:
    return Status.SUCCESS


class StorageSCP:
    """The listening SCP. `accept` makes an instance durable or raises.

    `free_bytes` is the room on the data disk: below `reserve` bytes nothing is taken, below `low` bytes no association
    is accepted. What cannot stay in memory on its way in lies sealed in `folder`. `further_ae_titles` are called AE
    titles it answers to besides its own, `signals` SOP classes by which studies are announced. `committed` takes the
    archive's answers to our requests for storage commitment; without it that service is not offered.
    """

    def __init__(
        self,
        config: Receive,
        accept: Accept,
        folder: Path,
        *,
        free_bytes: Callable[[], int],
        reserve: int = 0,
        low: int = 0,
        further_ae_titles: Collection[str] = (),
        signals: Collection[str] = (),
        committed: Committed | None = None,
    ) -> None:
        self._config = config
        self._accept = accept
        self._committed = committed
        self._free_bytes = free_bytes
        self._reserve = reserve
        self._low = max(low, reserve)
        self._largest = config.max_object_mb * 1_000_000
        self._admission = Admission(config, further_ae_titles, signals)
        self._places = Places(config.max_associations, config.max_associations_per_sender)
        self._pace = Pace(config.sender_mb_per_s * 1e6)
        self.folder = folder
        self.budget = Budget(config.memory_mb << 20)
        self.refused = Tally()
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._open: dict[StorageAssociation, str] = {}  # "" as long as it holds no place
        self._busy = 0
        self._idle = threading.Condition()
        self._draining = False
        self._asked, self._plenty = 0.0, 0  # when the disk was asked; bytes above `low` that it had then

    @property
    def port(self) -> int:
        """The port in use (useful when the configuration says 0)."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen. Raises OSError when the address is taken, Stop for a pynetdicom it was not made for."""
        check_library()
        entity = AE(self._config.ae_title)
        entity.maximum_pdu_size = MAX_PDU
        entity.maximum_associations = 1_000_000  # counted here, by sender
        entity.network_timeout = self._config.network_timeout_s
        entity.acse_timeout = self._config.network_timeout_s
        entity.dimse_timeout = self._config.network_timeout_s
        entity.add_supported_context(Verification)
        self._server = entity.make_server(
            (self._config.host, self._config.port) if self._config.plain else (LOOPBACK, 0),
            ae_title=self._config.ae_title,
            server_class=_Server,
            request_handler=_Handler,
        )
        self._server.desk = self
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
        """Count a caller that another door refused before it could say who it is."""
        self._tell("", reason)

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
        with self._lock:
            left = list(self._open)
        for association in left:
            association.dul.wire.hang_up()
        return finished

    def admits(self, address: str) -> bool:
        """Whether a connection from this host is taken at all."""
        if self._admission.admits_address(address):
            return True
        self._tell("", "address-not-allowed", code="receive.address-not-allowed")
        return False

    def arrived(self, association: StorageAssociation) -> None:
        """A connection is made; when too many have asked for nothing yet, the oldest of them ends."""
        with self._lock:
            self._open[association] = ""
            strangers = [one for one, sender in self._open.items() if not sender]
            if len(strangers) <= MOST_STRANGERS:
                return
            del self._open[strangers[0]]
        strangers[0].dul.wire.hang_up()
        self._tell("", "too-many-silent-connections")

    def left(self, association: StorageAssociation) -> None:
        """Its place is free again; until its connection closes it counts with those that ask for nothing."""
        with self._lock:
            sender = self._open.get(association, "")
            if sender:
                self._open[association] = ""
        if sender:
            self._places.leave(sender)

    def closed(self, association: StorageAssociation) -> None:
        self.left(association)
        with self._lock:
            self._open.pop(association, None)

    def refusal(self, association: StorageAssociation) -> tuple[int, int, int] | None:
        """Why the association is rejected, or None; then it holds a place and knows its contexts."""
        request = association.requestor.primitive
        association.peer = _address(association)
        sender = f"{association.sender} {association.peer}"
        rejection: Rejection | None = DRAINING if self._draining else None
        rejection = rejection or self._admission.rejects_titles(request.called_ae_title, association.sender)
        if rejection is None and self._free_bytes() < self._low:
            rejection = DISK_LOW
        if rejection is None and (rejection := self._places.take(sender)) is None:
            with self._lock:
                self._open[association] = sender
            proposed = request.presentation_context_definition_list
            contexts = self._admission.contexts_for(proposed)
            if self._committed is not None:
                contexts.append(_as_scu_of(MODEL))
            association.acceptor.supported_contexts = contexts
            return None
        self._tell(association.sender, rejection.reason)
        return rejection.result, rejection.source, rejection.diagnostic

    def on_commitment(self, event: evt.Event) -> tuple[int, None]:
        """N-EVENT-REPORT: the archive says what became of results of ours."""
        assert self._committed is not None  # the context is accepted only then
        status = answer_to(event, self._committed)
        log.info("commitment.reported", calling_ae=event.assoc.sender, status=Status(status).name)
        return status, None

    def fault(self, association: StorageAssociation, reason: str) -> None:
        self._tell(association.sender, reason)

    def begin(self, association: StorageAssociation) -> int | None:
        if self._free() < self._reserve:
            return self._refuse(association, "disk-full")
        return None

    def more(self, association: StorageAssociation, size: int) -> int | None:
        if size > self._largest:
            return self._refuse(association, "object-too-large", size)
        return None

    def no_memory(self, association: StorageAssociation) -> int:
        return self._refuse(association, "disk-full")

    def passed_over(self, size: int) -> None:
        """A refused object may go on for as much again as may be sent, so that its sender hears the status."""
        if size > self._largest:
            raise Fault("object-endless")

    def store(self, association: StorageAssociation, context: Any, request: StoreRequest) -> int:
        with self._idle:
            self._busy += 1
        try:
            return self._store(association, context, request)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def announce(self, event: evt.Event, command: Command) -> tuple[Any, None]:
        """An MPPS or availability request: its status, once a worker has taken it down."""
        sender = event.assoc.sender

        def refused(reason: str) -> None:
            self._tell(sender, reason, **({"code": reason} if "." in reason else {}))

        def accept(arrival: Arrival) -> Receipt:
            if self._free_bytes() < self._low:
                raise Retry("spool.disk-full", "the disk is low")
            self._keep_pace(arrival)
            return self._accept(arrival)

        with self._idle:
            self._busy += 1
        try:
            return answer(event, command, accept, refused)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _store(self, association: StorageAssociation, context: Any, request: StoreRequest) -> int:
        in_memory, memory, file, spilled = association.landing.handles()
        arrival = Arrival(
            transfer_syntax=str(context.transfer_syntax[0]),
            sop_class=uid_text(request.sop_class),
            sop_instance=uid_text(request.sop_instance),
            calling_ae=association.sender,
            called_ae=str(association.requestor.primitive.called_ae_title).strip(),  # the acceptor's own is always ours
            peer=association.peer,
            received_at=time.time(),
            in_memory=in_memory,
            memory=memory,
            file=file,
            spilled=spilled,
        )
        if self._free(arrival.size) < self._reserve:
            return self._refuse(association, "disk-full", arrival.size)
        self._keep_pace(arrival)
        try:
            receipt = self._accept(arrival)
        except EdgeNodeError as error:
            full = isinstance(error, Retry) and error.code in FULL
            status = Status.OUT_OF_RESOURCES if full else Status.PROCESSING_FAILURE
            return self._refuse(association, error.code, arrival.size, status)
        if _told.isEnabledFor(logging.DEBUG):  # to ask costs a hundredth of not being heard
            log.debug("instance.received", study=receipt.study_key, state=str(receipt.received), code=receipt.code)
        return Status.SUCCESS

    def _free(self, taken: int = 0) -> int:
        """Bytes free on the disk when `taken` more have come. As long as there is plenty the disk is not asked for each
        instance: each question gives the interpreter lock away."""
        now = time.monotonic()
        if self._plenty > PLENTY and now < self._asked + ROOM_S:
            self._plenty -= taken
        else:
            self._asked, self._plenty = now, self._free_bytes() - taken - self._low
        return self._plenty + self._low

    def _keep_pace(self, arrival: Arrival) -> None:
        wait_s = self._pace.wait_s(f"{arrival.calling_ae} {arrival.peer}", arrival.size, time.monotonic())
        if wait_s:  # to sleep for no time takes as long as a timer is coarse
            time.sleep(wait_s)

    def _refuse(
        self, association: StorageAssociation, reason: str, size: int = 0, status: int = Status.OUT_OF_RESOURCES
    ) -> int:
        code = reason if "." in reason else "receive.out-of-resources"
        self._tell(association.sender, reason, code=code, bytes=size)
        return status

    def _tell(self, sender: str, reason: str, **more: Any) -> None:
        """Count, and log the first ones and then every hundredth: a storm must not fill the disk with its log."""
        number = self.refused.count(sender, reason)
        if number <= 10 or number % 100 == 0:
            log.warning("sender.refused", calling_ae=sender, reason=reason, count=number, **more)


def _as_scu_of(sop_class: str) -> Any:
    """A context whose peer may take the SCP's role; one that proposes no role is understood as well."""
    context = build_context(UID(sop_class))
    context.scu_role, context.scp_role = True, True
    return context


def _address(association: StorageAssociation) -> str:
    try:
        return str(ip_address(str(association.requestor.address)))
    except ValueError:
        return ""

"""The adapter to pynetdicom's upper layer: one blocking thread an association instead of two that poll.

pynetdicom's state machine, negotiation and messages stay as they are. What is replaced are its two loops, which wake
a thousand times a second each, copy every byte six times and hold a whole object before they look at its size: here
the association's own thread reads the socket, hands each PDU to the state machine, and lets the fragments of a
C-STORE data set (PS3.8 Annex E) land in memory as they come. It uses names that pynetdicom does not promise to keep;
`check_library` refuses a release it was not made for, and tests hold it to real peers.
"""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import pynetdicom
from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA

from edge_node.domain.announcement import CLASSES
from edge_node.domain.errors import Stop
from edge_node.domain.status import Status
from edge_node.receive import command
from edge_node.receive.desk import Desk, Fault
from edge_node.receive.landing import Landing
from edge_node.receive.wire import Closed, TooSlow, Wire

MAX_PDU = 131_072  # larger PDUs only make the copies larger
LONGEST_PDU = 8 * MAX_PDU  # nobody may send data PDUs over MAX_PDU; an A-ASSOCIATE-RQ with 128 contexts fits too
LONGEST_COMMAND = 65_536  # command set of any message, and data set of one that is no C-STORE
LONGEST_SIGNAL = 4 << 20  # of a message that announces a study: it lists each of its instances
LINGER_BYTES = 1 << 20
HANDED_S = 5.0
LINGER_S = 1.0  # for the peer to close after a reject, a release or an abort (the ARTIM timer of PS3.8 9.1.4)
OPEN_FOR = ("3.0.",)
_ASSOCIATE_RQ, _DATA, _LAST = 0x01, 0x04, 0x07
_WAITING, _IDLE, _DATA_TRANSFER, _CLOSING = "Sta2", "Sta1", "Sta6", "Sta13"
_ANY = range(_ASSOCIATE_RQ, _LAST + 1)
_EXPECTED = {_WAITING: (_ASSOCIATE_RQ, _LAST), _DATA_TRANSFER: (_DATA, 0x05, _LAST)}  # PS3.8 9.2: all else is aborted


def check_library() -> None:
    """Raises Stop("receive.library-version") when pynetdicom is not a release this adapter was made for."""
    if not pynetdicom.__version__.startswith(OPEN_FOR):
        raise Stop(
            "receive.library-version",
            f"pynetdicom {pynetdicom.__version__} is installed; the receiver is made for {', '.join(OPEN_FOR)}x",
            hint="install the versions that edge-node pins",
        )


class UpperLayer(DULServiceProvider):  # type: ignore[misc]  # pynetdicom has no types
    """pynetdicom's DUL without a thread of its own: `step` is one round of it."""

    association: StorageAssociation
    wire: Wire
    dropped = 0  # bytes passed over since the conversation ended

    def start(self) -> None:
        """There is no thread to start."""

    def is_alive(self) -> bool:
        return False

    @property
    def state(self) -> str:
        return str(self.state_machine.current_state)

    @property
    def over(self) -> bool:
        return bool(self._kill_thread) or self.state == _IDLE

    def _send(self, pdu: Any) -> None:
        self.wire.send(pdu.encode())

    def pump(self) -> None:
        """Let the state machine act on everything that is queued."""
        while not self._kill_thread:
            if not self.event_queue.empty():
                event = self.event_queue.get(block=False)
            elif self._process_recv_primitive():
                continue
            else:
                return
            try:
                self.state_machine.do_action(event)
            except InvalidEventError:  # for instance an abort of ours after the peer's own
                self.kill_dul()

    def step(self) -> None:
        """Wait up to a tick for the peer, act on one PDU or on the end of the connection."""
        try:
            if self.wire.wait():
                if self.state == _CLOSING:
                    self.dropped += self.wire.drop()
                else:
                    self._read_pdu(self._deadline())
        except Closed:
            self.event_queue.put("Evt17")
        except TooSlow:
            self._break_off("too-slow")
        except Fault as fault:
            self._break_off(fault.reason)
        self.pump()

    def _deadline(self) -> float:
        """When a PDU that begins now must be whole."""
        return time.monotonic() + float(self.network_timeout or 60.0)

    def _break_off(self, reason: str) -> None:
        self.association.desk.fault(self.association, reason)
        self.event_queue.put("Evt19")

    def _read_pdu(self, deadline: float) -> None:
        wire, message, state = self.wire, self.association.message, self.state
        while True:
            head = wire.read(6, deadline)
            kind, _, length = struct.unpack(">BBL", head)
            if not _ASSOCIATE_RQ <= kind <= _LAST:
                raise Fault("not-dicom")
            if kind not in _EXPECTED.get(state, _ANY):
                raise Fault("unexpected-pdu")
            if length > LONGEST_PDU:
                raise Fault("pdu-too-long")
            if kind != _DATA or state != _DATA_TRANSFER:
                break
            message.read(wire, length, deadline)
            if not (message.is_under_way and wire.is_ahead and self.association.dimse.msg_queue.empty()):
                return
            deadline = self._deadline()  # inside a data set nothing is for the state machine to do
        if kind != _ASSOCIATE_RQ and length > LONGEST_COMMAND:
            raise Fault("pdu-too-long")
        try:
            pdu, event = self._decode_pdu(bytearray(head + wire.read(length, deadline)))
        except (Closed, TooSlow):
            raise
        except Exception:  # whatever a hostile PDU makes the decoder raise
            raise Fault("pdu-malformed") from None
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)


class _Message:
    """The DIMSE message that is coming in: commands go to pynetdicom, C-STORE data sets to the landing."""

    def __init__(self, association: StorageAssociation) -> None:
        self._association = association
        self._command = bytearray()
        self._request: command.StoreRequest | None = None
        self._context = 0
        self._reports = False  # the message that is not ours is an N-EVENT-REPORT
        self._other = 0  # bytes of a message that is not ours, still in the works
        self._refused: int | None = None
        self._passed_over = 0

    @property
    def is_under_way(self) -> bool:
        """Whether more of a data set is to come."""
        return self._request is not None

    def read(self, wire: Wire, left: int, deadline: float) -> None:
        """All presentation data values of one P-DATA-TF PDU (PS3.8 9.3.5). Raises Fault, Closed, TooSlow."""
        if not left:
            raise Fault("pdv-malformed")
        while left:
            if left < 6:
                raise Fault("pdv-malformed")
            size, context, control = struct.unpack(">LBB", wire.read(6, deadline))
            left -= 4 + size
            if size < 2 or left < 0:
                raise Fault("pdv-malformed")
            if control & 1:
                self._read_command(wire.read(size - 2, deadline), context, control)
            elif self._request is not None:
                self._read_data(wire, size - 2, context, deadline)
                if control & 2:
                    self._end()
            elif self._other:
                self._pass_on(wire.read(size - 2, deadline), context, control)
            else:
                raise Fault("data-without-command")

    def _read_command(self, part: bytes, context: int, control: int) -> None:
        if self._request is not None:
            raise Fault("command-inside-data")
        if self._other:
            self._pass_on(part, context, control)
            return
        self._command += part
        if len(self._command) > LONGEST_COMMAND:
            raise Fault("command-too-long")
        if not control & 2:
            return
        whole, self._command = bytes(self._command), bytearray()
        if context not in self._association.accepted:
            raise Fault("context-not-accepted")
        try:
            fields = command.parse(whole)
            kind = command.number(fields, command.COMMAND_FIELD)
            self._reports = kind == command.N_EVENT_REPORT_RQ
            if kind != command.C_STORE_RQ:
                self._pass_on(whole, context, control)
                return
            self._begin(command.StoreRequest.of(fields), context)
        except command.BadCommand:
            raise Fault("command-malformed") from None

    def _begin(self, request: command.StoreRequest, context: int) -> None:
        association = self._association
        self._request, self._context, self._passed_over = request, context, 0
        association.landing.clear()
        self._refused = association.desk.begin(association)
        if not request.has_data_set:
            self._refused = Status.CANNOT_UNDERSTAND
            self._end()

    def _read_data(self, wire: Wire, size: int, context: int, deadline: float) -> None:
        association, landing = self._association, self._association.landing
        if context != self._context:
            raise Fault("context-changed")
        if self._refused is None:
            self._refused = association.desk.more(association, landing.size + size)
        try:
            while size and self._refused is None:
                with landing.room(size) as room:
                    wire.read_into(room, deadline)
                    count = len(room)
                landing.took(count)
                size -= count
        except OSError:
            self._refused = association.desk.no_memory(association)
        if self._refused is not None:
            landing.clear()
            self._passed_over += size
            association.desk.passed_over(self._passed_over)
            while size:
                size -= len(wire.read(min(size, LONGEST_COMMAND), deadline))

    def _end(self) -> None:
        association, request = self._association, self._request
        assert request is not None
        status = self._refused
        if status is None:
            status = association.desk.store(association, association.accepted[self._context], request)
        self._request, self._refused = None, None
        association.landing.clear()
        association.dul.wire.send(command.store_response(self._context, request, status))
        association.dul.wire.last_byte = time.monotonic()

    def _pass_on(self, part: bytes, context: int, control: int) -> None:
        """Give a message that is no C-STORE (a C-ECHO, an N-CREATE) to pynetdicom, as long as it is small."""
        self._other += len(part) + 1
        accepted = self._association.accepted.get(context)
        signal = accepted is not None and str(accepted.abstract_syntax) in CLASSES.values()
        if self._other > (LONGEST_SIGNAL if signal else LONGEST_COMMAND):
            raise Fault("command-too-long")
        primitive = P_DATA()
        primitive.presentation_data_value_list = [[context, bytes([control]) + part]]
        dimse, waiting = self._association.dimse, self._association.dimse.msg_queue.qsize()
        try:
            dimse.receive_primitive(primitive)
        except Exception:
            raise Fault("command-malformed") from None
        if dimse.message is None or dimse.msg_queue.qsize() > waiting:
            self._other = 0
            # pynetdicom hands an event report over in a thread of its own; nobody else would wake this one for it
            until, broken = time.monotonic() + HANDED_S, self._association.dul.event_queue
            while self._reports and dimse.msg_queue.qsize() == waiting and broken.empty() and time.monotonic() < until:
                time.sleep(0.0005)


class StorageAssociation(Association):  # type: ignore[misc]  # pynetdicom has no types
    """An acceptor that runs in its own thread alone and asks `desk` what to do."""

    dul: UpperLayer
    is_established: bool

    def __init__(self, ae: Any, desk: Desk, landing: Landing) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.dul = UpperLayer(self)
        self.dul.association = self
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout
        self.desk = desk
        self.landing = landing
        self.message = _Message(self)
        self.sender = self.peer = ""  # calling AE title and address once they are known

    def set_socket(self, socket: Wire) -> None:
        super().set_socket(socket)
        self.dul.wire = socket

    @property
    def accepted(self) -> dict[int, Any]:
        """Accepted presentation contexts by ID."""
        contexts: dict[int, Any] = self._accepted_cx
        return contexts

    def _serve_request(self, message: Any, context_id: int) -> None:
        """Serve in this thread alone, also what pynetdicom hands over in another one."""
        if threading.current_thread() is self:
            super()._serve_request(message, context_id)
        else:
            self.dimse.msg_queue.put((context_id, message))

    def start(self) -> None:
        """Serve in a thread. Raises RuntimeError where there is none to be had; the connection is closed then."""
        try:
            super().start()
        except RuntimeError:
            self._end()
            raise

    def run_reactor(self) -> None:
        """The whole life of the association."""
        try:
            self._negotiate()
            while self.is_established and not self.dul.over and self.dul.state != _CLOSING:
                self._serve()
            self.desk.left(self)
            self._linger()
        finally:
            self._end()

    def _end(self) -> None:
        self.is_established = False
        self.dul.wire.finish()
        self.landing.close()
        self.desk.closed(self)

    def _negotiate(self) -> None:
        dul, deadline = self.dul, time.monotonic() + float(self.acse_timeout or 60.0)
        dul.pump()
        while dul.state == _WAITING and not dul.over:
            dul.step()
            if time.monotonic() > deadline and dul.state == _WAITING:
                self.desk.fault(self, "no-association-request")
                dul.wire.hang_up()
        request = dul.peek_next_pdu()
        if dul.over or not isinstance(request, A_ASSOCIATE):
            return
        self.requestor.primitive = dul.receive_pdu(wait=False)
        self.sender = str(request.calling_ae_title).strip()
        evt.trigger(self, evt.EVT_REQUESTED, {})
        refusal = self.desk.refusal(self)
        if refusal is not None:
            self.acse.send_reject(*refusal)
        else:
            self.acse.negotiate_association()
        dul.pump()

    def _serve(self) -> None:
        dul = self.dul
        dul.step()
        while not dul.over:
            context, message = self.dimse.get_msg(block=False)
            if message is None:
                break
            self._serve_request(message, context)
            dul.pump()
        if self.acse.is_release_requested():
            self.desk.left(self)  # before the peer hears: it may come back at once
            self.acse.send_release(is_response=True)
            self.is_released, self.is_established = True, False
            dul.pump()
        elif self.acse.is_aborted():
            self.is_aborted, self.is_established = True, False
        elif (silent := time.monotonic() - dul.wire.last_byte) > float(self.network_timeout or 60.0):
            self.desk.fault(self, "silent")
            dul.event_queue.put("Evt19")
            dul.pump()
        elif silent > 0.5:
            self.landing.shrink()

    def _linger(self) -> None:
        """Give the peer a moment to close, so that our last PDU is read; what it still sends is passed over."""
        deadline = time.monotonic() + LINGER_S
        self.dul.pump()
        if self.dul.state == _CLOSING:
            self.dul.wire.say_goodbye()
        while self.dul.state == _CLOSING and not self.dul.over and time.monotonic() < deadline:
            self.dul.step()
            if self.dul.dropped > LINGER_BYTES:
                return

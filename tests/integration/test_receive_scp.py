"""The receiver against real senders: DCMTK on real sockets."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from edge_node.domain.errors import Retry
from edge_node.domain.study import IdentifiedInstance
from edge_node.store.receipt import Receipt
from tests.integration.needed_tools import need
from tests.integration.receiver import QUICK, STORED, Door

CT = str(get_testdata_file("CT_small.dcm"))
JPEG = str(get_testdata_file("JPEG2000.dcm"))


@pytest.fixture
def door() -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def make(**options: object) -> Door:
        doors.append(Door(**options))
        return doors[-1]

    yield make
    for one in doors:
        one.close()


def test_echo_is_answered(door: Callable[..., Door]) -> None:
    assert door().dcmtk("echoscu").returncode == 0


def test_an_instance_arrives_with_the_bytes_that_were_sent(door: Callable[..., Door]) -> None:
    one = door()
    answer = one.dcmtk("storescu", CT)
    assert answer.returncode == 0, answer.stderr
    [instance] = one.received
    raw = Path(CT).read_bytes()
    assert instance.dataset[-1000:] in raw
    assert (instance.calling_ae, instance.called_ae, instance.peer) == ("CT1", "EDGENODE", "127.0.0.1")


def test_a_compressed_instance_is_taken_in_the_syntax_it_is_sent_in(door: Callable[..., Door]) -> None:
    one = door()
    command = [need("dcmsend"), "--no-uid-checks", "-aec", "EDGENODE", "127.0.0.1", str(one.scp.port), JPEG]
    subprocess.run(command, capture_output=True, timeout=30, env=QUICK, check=False)
    assert [i.transfer_syntax for i in one.received] == ["1.2.840.10008.1.2.4.91"]


def test_success_is_answered_only_after_the_instance_was_accepted(door: Callable[..., Door]) -> None:
    one, accepted = door(), threading.Event()

    def slow(_instance: IdentifiedInstance) -> Receipt:
        time.sleep(0.5)
        accepted.set()
        return STORED

    one.accept = slow
    assert one.dcmtk("storescu", CT).returncode == 0
    assert accepted.is_set()


def test_what_cannot_be_kept_now_is_refused_by_name(door: Callable[..., Door]) -> None:
    one = door()

    def full(_instance: IdentifiedInstance) -> Receipt:
        raise Retry("spool.disk-full", "no room")

    one.accept = full
    answer = one.dcmtk("storescu", CT)
    assert "0xA700" in answer.stdout + answer.stderr or "OutOfResources" in answer.stdout + answer.stderr
    one.free = 0
    one.received.clear()
    one.dcmtk("storescu", CT)
    assert one.received == []


def test_an_association_that_calls_somebody_else_is_rejected(door: Callable[..., Door]) -> None:
    answer = door().dcmtk("echoscu", called="SOMEONE")
    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stderr + answer.stdout


def test_a_title_that_a_rule_names_is_answered_and_told(door: Callable[..., Door]) -> None:
    one = door()
    assert one.dcmtk("storescu", CT, called="LUNG").returncode == 0
    assert one.dcmtk("storescu", CT).returncode == 0
    assert [instance.called_ae for instance in one.received] == ["LUNG", "EDGENODE"]
    lax = door(require_called_ae_title=False)
    assert lax.dcmtk("storescu", CT, called="ANYBODY").returncode == 0
    assert [instance.called_ae for instance in lax.received] == ["ANYBODY"]


def test_a_sender_that_is_not_on_the_list_is_rejected(door: Callable[..., Door]) -> None:
    one = door(calling_ae_titles=["CT1"])
    assert one.dcmtk("echoscu", calling="CT1").returncode == 0
    answer = one.dcmtk("echoscu", calling="STRANGER")
    assert "Calling AE Title Not Recognized" in answer.stderr + answer.stdout


def test_a_host_that_is_not_on_the_list_gets_no_association(door: Callable[..., Door]) -> None:
    assert door(allowed_addresses=["192.0.2.0/24"]).dcmtk("echoscu").returncode != 0


def test_one_association_too_many_is_rejected_not_hung(door: Callable[..., Door]) -> None:
    one, gate = door(max_associations=1), threading.Event()

    def wait(_instance: IdentifiedInstance) -> Receipt:
        gate.wait(10)
        return STORED

    one.accept = wait
    first = threading.Thread(target=one.dcmtk, args=("storescu", CT))
    first.start()
    while not one.received:
        time.sleep(0.01)
    answer = one.dcmtk("echoscu")
    gate.set()
    first.join()
    assert answer.returncode != 0
    assert "Rejected" in answer.stderr + answer.stdout


def test_a_drain_lets_what_is_under_way_finish(door: Callable[..., Door]) -> None:
    one, gate = door(), threading.Event()

    def wait(_instance: IdentifiedInstance) -> Receipt:
        gate.wait(10)
        return STORED

    one.accept = wait
    answers: list[subprocess.CompletedProcess] = []
    sender = threading.Thread(target=lambda: answers.append(one.dcmtk("storescu", CT)))
    sender.start()
    while not one.received:
        time.sleep(0.01)
    threading.Timer(0.3, gate.set).start()
    assert one.scp.stop(10.0) is True
    sender.join()
    assert "0x0000" in answers[0].stdout + answers[0].stderr or answers[0].returncode == 0


def test_a_peer_that_sends_half_a_pdu_and_stops_does_not_hold_others_up(door: Callable[..., Door]) -> None:
    one = door(network_timeout_s=2)
    with socket.create_connection(("127.0.0.1", one.scp.port)) as half:
        half.sendall(b"\x01\x00\x00\x00\x10")
        assert one.dcmtk("echoscu").returncode == 0


def test_a_peer_that_claims_a_pdu_of_four_gigabytes_is_not_believed(door: Callable[..., Door]) -> None:
    one = door()
    with socket.create_connection(("127.0.0.1", one.scp.port), timeout=10) as liar:
        liar.sendall(b"\x01\x00\xff\xff\xff\xff" + bytes(100_000))
        with suppress(ConnectionResetError):
            while liar.recv(4096):
                pass
    assert one.dcmtk("echoscu").returncode == 0

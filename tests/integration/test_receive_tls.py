"""DICOM over TLS against DCMTK's own TLS, and against callers that have no business there."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from edge_node.config.load import Loaded, load
from edge_node.config.schema import Receive, Tls
from edge_node.domain.body import Memory
from edge_node.domain.errors import Retry, Stop
from edge_node.domain.study import IdentifiedInstance
from edge_node.domain.worklist import Peer, PeerTls
from edge_node.receive.landing import Arrival
from edge_node.receive.scp import StorageSCP
from edge_node.receive.tls import TlsListener
from edge_node.service.doctor import examine
from edge_node.service.echo import echo
from edge_node.service.sender import send_study
from edge_node.store.receipt import Receipt, Received
from edge_node.worklist.association import line_to
from tests.integration.needed_tools import need
from tests.integration.no_thread import no_thread_for
from tests.integration.peers_orthanc import free_port
from tests.integration.pki import Pki

CT = str(get_testdata_file("CT_small.dcm"))
QUICK = {**os.environ, "TCP_NODELAY": "1"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Door:
    """A receiver with a TLS door that demands certificates."""

    def __init__(self, pki: Pki, folder: Path, *, receive: dict[str, object] | None = None, **tls: object) -> None:
        self.received: list[IdentifiedInstance] = []
        self.pki = pki
        self.scp = StorageSCP(
            Receive(host="127.0.0.1", port=0, **(receive or {})),  # type: ignore[arg-type]
            self._accept,
            folder,
            free_bytes=lambda: 10**12,
        )
        self.scp.start()
        options = {"cert": pki.cert("server"), "key": pki.key("server"), "client_ca": pki.cert("ca"), **tls}
        self.tls = TlsListener(
            "127.0.0.1",
            Tls(port=0, **options),  # type: ignore[arg-type]
            self.scp.adopt,
            admits_address=self.scp.admits_address,
            refused=self.scp.turn_away,
        )
        self.tls.start()

    def _accept(self, arrival: Arrival) -> Receipt:
        with arrival.opened() as landed:
            instance = replace(landed, source=Memory(landed.dataset))
        self.received.append(instance)
        return Receipt(Received.STORED, "S")

    def dcmtk(self, tool: str, *words: str, who: str = "client") -> subprocess.CompletedProcess[str]:
        pki = self.pki
        tls = ["+tls", str(pki.key(who)), str(pki.cert(who)), "+cf", str(pki.cert("ca"))]
        command = [need(tool), "-v", *tls, "-aec", "EDGENODE", "127.0.0.1", str(self.tls.port), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=QUICK, check=False)

    def peer(self, who: str | None = "client", ca: str = "ca", name: str = "localhost") -> Peer:
        pki = self.pki
        pair = (pki.cert(who), pki.key(who)) if who else (None, None)
        return Peer("EDGENODE", "127.0.0.1", self.tls.port, PeerTls(name, pki.cert(ca), *pair))

    def turned_away(self) -> set[str]:
        return {row["reason"] for row in self.scp.refused.rows()}

    def refused_for(self, reason: str) -> bool:
        """Whether a caller is turned away for that reason, soon."""
        end = time.monotonic() + 5
        while time.monotonic() < end and reason not in self.turned_away():
            time.sleep(0.02)
        return reason in self.turned_away()

    def stop(self) -> None:
        self.tls.stop()
        self.scp.stop(1.0)


@pytest.fixture
def door(pki: Pki, tmp_path: Path) -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def make(**options: object) -> Door:
        doors.append(Door(pki, tmp_path, **options))  # type: ignore[arg-type]
        return doors[-1]

    yield make
    for one in doors:
        one.stop()


def test_dcmtk_sends_over_tls_and_the_bytes_arrive_as_sent(door: Callable[..., Door]) -> None:
    one = door()
    answer = one.dcmtk("storescu", CT)
    assert answer.returncode == 0, answer.stderr
    [instance] = one.received
    assert instance.dataset[-1000:] in Path(CT).read_bytes()
    assert instance.peer == "127.0.0.1"
    assert one.turned_away() == set()


def test_a_large_object_comes_through_whole_over_tls(door: Callable[..., Door], tmp_path: Path) -> None:

    big = dcmread(CT)
    big.Rows, big.Columns, big.NumberOfFrames = 1024, 1024, 8
    big.PixelData = os.urandom(1024 * 1024 * 8 * 2)
    big.save_as(tmp_path / "big.dcm")
    one = door()
    report = send_study([tmp_path / "big.dcm"], one.peer())
    assert report.by_status == {"SUCCESS": 1}
    assert big.PixelData in one.received[0].dataset


def test_tls_1_2_is_spoken_and_tls_1_1_is_not(door: Callable[..., Door], pki: Pki) -> None:
    one = door()
    context = ssl.create_default_context(cafile=str(pki.cert("ca")))
    context.load_cert_chain(pki.cert("client"), pki.key("client"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", one.tls.port)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as line,
    ):
        assert line.version() == "TLSv1.2"
        assert line.cipher()[0].startswith("ECDHE-")  # type: ignore[index]
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", one.tls.port)) as raw,
        pytest.raises(OSError, match=r"(?i)version|eof|reset"),
    ):
        old.wrap_socket(raw)
    assert one.refused_for("tls-version")


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("rogue", "tls-certificate-not-trusted"),
        ("expired", "tls-certificate-not-trusted"),
        (None, "tls-no-certificate"),
    ],
)
def test_a_caller_without_a_good_certificate_is_refused_and_told_of(
    door: Callable[..., Door], who: str | None, reason: str
) -> None:
    one = door()
    with pytest.raises(Retry):
        echo(one.peer(who), "CT1", 5)
    assert one.refused_for(reason)
    assert echo(one.peer(), "CT1", 5) < 5


def test_only_the_certificates_on_the_list_may_pass(door: Callable[..., Door], pki: Pki) -> None:
    for allowed in ("CN=client", pki.fingerprint("client"), pki.fingerprint("client").replace(":", "").lower()):
        one = door(allowed_clients=[allowed])
        assert one.dcmtk("echoscu").returncode == 0
        assert one.dcmtk("echoscu", who="second").returncode != 0
        assert one.refused_for("tls-certificate-not-allowed")


def test_plain_dicom_http_and_noise_on_the_tls_port_are_refused(door: Callable[..., Door]) -> None:
    one = door()
    command = [need("echoscu"), "-aec", "EDGENODE", "-to", "5", "127.0.0.1", str(one.tls.port)]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0
    assert one.refused_for("tls-not-tls")
    for noise in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\x16\x03\x01\xff\xff" + bytes(64)):
        with socket.create_connection(("127.0.0.1", one.tls.port), timeout=5) as caller, suppress(OSError):
            caller.sendall(noise)  # it may be refused before the noise is over
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(4096):
                pass
    assert one.dcmtk("echoscu").returncode == 0


def test_tls_on_the_plain_port_gets_no_association(door: Callable[..., Door], pki: Pki) -> None:
    one = door()
    lost = Peer("EDGENODE", "127.0.0.1", one.scp.port, PeerTls("localhost", pki.cert("ca")))
    with pytest.raises(Retry):
        echo(lost, "CT1", 3)
    assert echo(Peer("EDGENODE", "127.0.0.1", one.scp.port), "CT1", 5) < 5


def test_two_hundred_silent_connections_keep_nobody_out_and_are_ended(door: Callable[..., Door]) -> None:
    one = door(handshake_s=3)
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", one.tls.port)) for _ in range(200)]
    try:
        assert one.dcmtk("echoscu").returncode == 0
        assert sum(thread.name == "tls-handshake" for thread in threading.enumerate()) <= 40
        assert one.refused_for("tls-too-many-handshakes")
        assert one.refused_for("tls-too-slow")
    finally:
        for connection in silent:
            connection.close()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_a_handshake_that_drips_ends_in_time(door: Callable[..., Door]) -> None:
    one = door(handshake_s=1)
    with socket.create_connection(("127.0.0.1", one.tls.port), timeout=5) as slow:
        slow.sendall(b"\x16\x03\x01\x02\x00")
        with suppress(OSError):
            for _ in range(30):
                slow.sendall(b"\x01")
                time.sleep(0.1)
    assert one.refused_for("tls-too-slow")


@pytest.mark.parametrize("thread", ["tls-handshake", "AcceptorThread"])
def test_a_moment_without_threads_costs_one_caller_and_not_the_door(
    door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    one = door()
    left = no_thread_for(monkeypatch, thread)
    assert one.dcmtk("echoscu").returncode != 0
    assert not left
    assert one.refused_for("tls-no-thread")
    assert not one.scp._open
    assert one.dcmtk("echoscu").returncode == 0


def test_a_host_that_is_not_on_the_list_gets_no_handshake(door: Callable[..., Door]) -> None:
    one = door(receive={"allowed_addresses": ["192.0.2.0/24"]})
    assert one.dcmtk("echoscu").returncode != 0
    assert one.refused_for("tls-address-not-allowed")


def test_with_plain_off_only_the_tls_port_answers(door: Callable[..., Door]) -> None:
    one = door(receive={"plain": False})
    assert one.dcmtk("storescu", CT).returncode == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", one.scp.port), timeout=2)


def test_an_idle_encrypted_association_is_ended_too(door: Callable[..., Door], pki: Pki) -> None:
    one = door(receive={"network_timeout_s": 1})
    context = ssl.create_default_context(cafile=str(pki.cert("ca")))
    context.load_cert_chain(pki.cert("client"), pki.key("client"))
    with (
        socket.create_connection(("127.0.0.1", one.tls.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as line,
    ):
        started = time.monotonic()
        with suppress(OSError):
            while line.recv(4096):
                pass
        assert time.monotonic() - started < 8


def test_a_peer_with_the_wrong_name_or_another_ca_is_not_sent_to(door: Callable[..., Door]) -> None:
    one = door()
    with pytest.raises(Retry, match=r"peer\.tls-failed.*certificate is not accepted"):
        echo(one.peer(name="pacs.example.org"), "CT1", 5)
    with pytest.raises(Retry, match=r"peer\.tls-failed.*certificate is not accepted"):
        echo(one.peer(ca="other-ca"), "CT1", 5)


def test_a_key_that_is_not_the_certificates_stops_the_role_with_a_reason(door: Callable[..., Door], pki: Pki) -> None:
    with pytest.raises(Stop, match=r"tls\.cert-unusable.*not that of the certificate"):
        door(key=pki.key("client"))


def config_with(tmp_path: Path, pki: Pki, cert: str, **more: object) -> Loaded:
    flags = {
        "node.data_dir": str(tmp_path),
        "tls.port": free_port(),
        "tls.cert": str(pki.cert(cert)),
        "tls.key": str(pki.key(cert)),
        "tls.client_ca": str(pki.cert("ca")),
        "receive.port": free_port(),
        "receive.host": "127.0.0.1",
        **more,
    }
    return load(environ={}, flags=flags)


@pytest.mark.parametrize(
    ("cert", "result", "word"),
    [("server", "warn", "does not answer"), ("soon", "warn", "expires in"), ("expired", "fail", "has expired")],
)
def test_doctor_tells_of_certificates_that_end(tmp_path: Path, pki: Pki, cert: str, result: str, word: str) -> None:
    check = next(one for one in examine(config_with(tmp_path, pki, cert)) if one.name == "TLS")
    assert (check.result, word in check.detail) == (result, True), check
    assert check.hint


def test_doctor_tells_of_a_key_that_does_not_match(tmp_path: Path, pki: Pki) -> None:
    loaded = config_with(tmp_path, pki, "server", **{"tls.key": str(pki.key("client"))})
    check = next(one for one in examine(loaded) if one.name == "TLS")
    assert check.result == "fail"
    assert "tls.cert-unusable" in check.detail


def test_results_are_written_to_an_archive_that_demands_our_certificate(pki: Pki, tmp_path: Path) -> None:
    port = free_port()
    command = [
        *(need("storescp"), "+tls", str(pki.key("server")), str(pki.cert("server"))),
        *("+cf", str(pki.cert("ca")), "-rc", "-od", str(tmp_path), str(port)),
    ]
    archive = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ours = PeerTls("localhost", pki.cert("ca"), pki.cert("client"), pki.key("client"))
        wait_until_it_answers(Peer("PACS", "127.0.0.1", port, ours))
        dataset = dcmread(CT)
        with line_to(
            Peer("PACS", "127.0.0.1", port, ours),
            [str(dataset.SOPClassUID)],
            calling_ae="EDGENODE",
            timeout_s=5,
            service="pacs",
        ) as line:
            assert line.no_delay
            assert line.store(dataset).name == "SUCCESS"
        assert [dcmread(path).SOPInstanceUID for path in tmp_path.iterdir()] == [dataset.SOPInstanceUID]
        naked = Peer("PACS", "127.0.0.1", port, PeerTls("localhost", pki.cert("ca")))
        with (
            pytest.raises(Retry, match=r"worklist\.pacs-unavailable"),
            line_to(naked, [str(dataset.SOPClassUID)], calling_ae="EDGENODE", timeout_s=5, service="pacs"),
        ):
            pass
    finally:
        archive.terminate()
        archive.wait(10)


def wait_until_it_answers(peer: Peer) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            echo(peer, "EDGENODE", 2)
        except Retry:
            assert time.monotonic() < end
            time.sleep(0.1)
        else:
            return

"""StowTrainer against a trainer that misbehaves over real sockets."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from edge_node.config.schema import Forward
from edge_node.domain.errors import Quarantine, Stop
from edge_node.domain.study import CleanObject, DeliveryState
from edge_node.forward.answer import Reason
from edge_node.forward.stow import SendReport, StowTrainer
from tests.clean_objects import clean_object, clean_part10, uid_of
from tests.integration.peers_orthanc import free_port
from tests.integration.peers_stow import (
    Step,
    StowServer,
    cut_mid_body,
    cut_reply,
    endless,
    lie,
    refuse,
    silent,
    status,
    too_large_for,
    truncate,
)

Outcomes = list[tuple[str, DeliveryState, str]]


def forward(url: str, **options: object) -> Forward:
    return Forward.model_validate({"url": url, "in_flight": 1, "timeout_s": 2, **options})


def send(config: Forward, objects: list[CleanObject]) -> tuple[SendReport, Outcomes]:
    outcomes: Outcomes = []
    trainer = StowTrainer(config)
    try:
        report = trainer.send(objects, on_result=lambda *outcome: outcomes.append(outcome))
    finally:
        trainer.close()
    return report, outcomes


def some(count: int) -> list[CleanObject]:
    return [clean_object(number) for number in range(count)]


def test_every_instance_arrives_unchanged_and_is_reported_once() -> None:
    objects = some(40)
    with StowServer() as trainer:
        report, outcomes = send(forward(trainer.url, in_flight=3), objects)
        assert trainer.held == {one.sop_uid: sha256(one.read()).hexdigest() for one in objects}
    assert report == SendReport(40, {}, {}, {}, None)
    assert sorted(uid for uid, _, _ in outcomes) == sorted(one.sop_uid for one in objects)
    assert {(state, code) for _, state, code in outcomes} == {(DeliveryState.DELIVERED, "")}
    assert max(len(request.uids) for request in trainer.requests) == 16


def test_requests_ask_for_json_and_announce_their_length() -> None:
    with StowServer() as trainer:
        send(forward(trainer.url), some(1))
        (request,) = trainer.requests
    assert request.headers["Accept"] == "application/dicom+json"
    assert request.headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert "Transfer-Encoding" not in request.headers
    assert int(request.headers["Content-Length"]) == request.length


def test_batches_stay_below_the_megabytes_of_the_configuration() -> None:
    objects = [clean_object(number, pixel_bytes=102_400) for number in range(6)]
    with StowServer() as trainer:
        report, _ = send(forward(trainer.url, batch_mb=0.25), objects)
        assert [len(request.uids) for request in trainer.requests] == [2, 2, 2]
    assert report.delivered == 6


def test_a_lying_200_leaves_the_missing_instance_for_the_next_pass() -> None:
    objects = some(3)
    with StowServer([lie]) as trainer:
        report, outcomes = send(forward(trainer.url), objects)
    assert report.delivered == 2
    assert report.remaining == {objects[-1].sop_uid: "trainer.unaccounted"}
    assert report.retry is not None
    assert report.retry.code == "forward.incomplete"
    assert objects[-1].sop_uid not in {uid for uid, _, _ in outcomes}


def test_a_400_that_stored_some_is_believed_for_those_it_names() -> None:
    objects = some(3)
    with StowServer([refuse({uid_of("sop", 1): Reason.CANNOT_UNDERSTAND + 0x22}, code=400)]) as trainer:
        report, outcomes = send(forward(trainer.url), objects)
    assert report.delivered == 2
    assert report.rejected == {uid_of("sop", 1): "trainer.cannot-understand"}
    assert (uid_of("sop", 1), DeliveryState.REJECTED, "trainer.cannot-understand") in outcomes
    assert report.retry is None


def test_a_refused_duplicate_is_delivered() -> None:
    with StowServer([refuse({uid_of("sop", 0): Reason.ALREADY_STORED}, code=409)]) as trainer:
        report, outcomes = send(forward(trainer.url), some(1))
    assert report.delivered == 1
    assert outcomes == [(uid_of("sop", 0), DeliveryState.DELIVERED, "trainer.already-stored")]


def test_an_instance_refused_for_now_remains_and_is_not_rejected() -> None:
    with StowServer([refuse({uid_of("sop", 0): Reason.OUT_OF_RESOURCES})]) as trainer:
        report, outcomes = send(forward(trainer.url), some(2))
    assert report.remaining == {uid_of("sop", 0): "trainer.out-of-resources"}
    assert report.rejected == {}
    assert [uid for uid, _, _ in outcomes] == [uid_of("sop", 1)]


@pytest.mark.parametrize("fault", [truncate, cut_reply, status(500, keep=True), cut_mid_body(700), status(400)])
def test_a_request_without_a_usable_answer_is_sent_again_in_halves(fault: Step) -> None:
    objects = some(8)
    with StowServer([fault]) as trainer:
        report, outcomes = send(forward(trainer.url), objects)
        assert trainer.changed == 0
        assert trainer.held == {one.sop_uid: sha256(one.read()).hexdigest() for one in objects}
        answered = trainer.requests[-2:]
    assert report.delivered == 8
    assert report.retry is None
    assert len(outcomes) == 8
    assert max(len(request.uids) for request in answered) <= 5


def test_a_truncated_answer_delivers_nothing() -> None:
    with StowServer([truncate] * 50) as trainer:
        report, outcomes = send(forward(trainer.url), some(4))
    assert outcomes == []
    assert report.delivered == 0
    assert len(report.remaining) == 4


def test_an_endless_answer_is_given_up() -> None:
    with StowServer([endless]) as trainer:
        report, _ = send(forward(trainer.url), some(2))
    assert report.delivered == 2


def test_a_compressed_answer_is_not_believed() -> None:
    with StowServer([status(200, {"Content-Encoding": "gzip"}, keep=True)] * 20) as trainer:
        report, outcomes = send(forward(trainer.url), some(1))
    assert outcomes == []
    assert report.remaining == {uid_of("sop", 0): "trainer.unreadable-answer"}


def test_a_body_too_large_is_halved_until_it_fits_and_the_size_is_remembered() -> None:
    objects = [clean_object(number, pixel_bytes=51_200) for number in range(16)]
    with StowServer([too_large_for(250_000)] * 20) as trainer:
        config = forward(trainer.url)
        sender = StowTrainer(config)
        report = sender.send(objects, on_result=lambda *_: None)
        before = len(trainer.steps)
        again = sender.send(
            [clean_object(number, pixel_bytes=51_200) for number in range(20, 24)], on_result=lambda *_: None
        )
        sender.close()
        refused_later = before - len(trainer.steps) - 1
    assert report.delivered == 16
    assert again.delivered == 4
    assert refused_later == 0


def test_one_instance_too_large_is_rejected_and_its_neighbours_delivered() -> None:
    objects = [clean_object(0), clean_object(1, pixel_bytes=409_600), clean_object(2)]
    with StowServer([too_large_for(250_000)] * 20) as trainer:
        report, outcomes = send(forward(trainer.url), objects)
    assert report.delivered == 2
    assert report.rejected == {uid_of("sop", 1): "trainer.too-large"}
    assert (uid_of("sop", 1), DeliveryState.REJECTED, "trainer.too-large") in outcomes


@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_trainer_ends_the_pass_with_its_own_wish_and_no_attempt_counted(code: int) -> None:
    with StowServer([status(code, {"Retry-After": "7"})]) as trainer:
        report, outcomes = send(forward(trainer.url, batch_instances=2), some(6))
        assert len(trainer.requests) == 1
    assert outcomes == []
    assert report.remaining == {one.sop_uid: "forward.busy" for one in some(6)}
    assert report.retry is not None
    assert (report.retry.code, report.retry.after, report.retry.counts) == ("forward.busy", 7.0, False)


def test_a_retry_after_date_is_understood() -> None:
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    with StowServer([status(503, {"Retry-After": when})]) as trainer:
        report, _ = send(forward(trainer.url), some(1))
    assert report.retry is not None
    assert report.retry.after == pytest.approx(60, abs=3)


def test_a_full_trainer_ends_the_pass_without_counting() -> None:
    with StowServer([status(507)]) as trainer:
        report, _ = send(forward(trainer.url), some(1))
    assert report.retry is not None
    assert (report.retry.code, report.retry.counts) == ("forward.trainer-full", False)


@pytest.mark.parametrize("code", [404, 405, 415, 302])
def test_a_wrong_address_ends_the_pass_and_names_the_setting(code: int) -> None:
    with StowServer([status(code, {"Location": "/elsewhere"})]) as trainer:
        report, _ = send(forward(trainer.url), some(3))
        assert len(trainer.requests) == 1
    assert report.retry is not None
    assert report.retry.code == "forward.endpoint"
    assert len(report.remaining) == 3


def test_a_renewed_token_is_read_from_its_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old-token\n")
    token.chmod(0o400)
    with StowServer(token="old-token") as trainer:
        sender = StowTrainer(forward(trainer.url, token_file=token))
        assert sender.send(some(1), on_result=lambda *_: None).delivered == 1
        token.chmod(0o600)
        token.write_text("new-token\n")
        trainer.token = "new-token"
        assert sender.send([clean_object(1)], on_result=lambda *_: None).delivered == 1
        sender.close()
    assert trainer.unknown == 0


def test_a_token_that_expires_between_two_requests_is_renewed_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old-token")
    token.chmod(0o600)
    with StowServer(token="old-token") as trainer:

        def renew(*_: object) -> None:
            if trainer.token == "old-token":
                token.write_text("new-token")
                trainer.token = "new-token"

        sender = StowTrainer(forward(trainer.url, token_file=token, batch_instances=1))
        report = sender.send(some(4), on_result=renew)
        sender.close()
    assert report.delivered == 4
    assert trainer.unknown == 1


def test_refused_credentials_end_the_pass_before_anything_is_uploaded(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong")
    token.chmod(0o400)
    with StowServer(token="right") as trainer:
        report, outcomes = send(forward(trainer.url, token_file=token), some(3))
        assert trainer.requests == []
    assert outcomes == []
    assert report.retry is not None
    assert report.retry.code == "forward.unauthorised"
    assert "wrong" not in str(report.retry)
    assert len(report.remaining) == 3


def test_a_secret_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-word")
    token.chmod(0o644)
    with StowServer(token="secret-word") as trainer:
        report, _ = send(forward(trainer.url, token_file=token), some(1))
    assert report.retry is not None
    assert report.retry.code == "secrets.file-too-open"
    assert "secret-word" not in str(report.retry)


def test_nobody_listening_ends_the_pass_at_once() -> None:
    started = time.monotonic()
    report, _ = send(forward(f"http://127.0.0.1:{free_port()}/studies"), some(50))
    assert report.retry is not None
    assert report.retry.code == "forward.unreachable"
    assert len(report.remaining) == 50
    assert time.monotonic() - started < 1


def test_a_trainer_that_never_answers_does_not_hold_the_pass_for_ever() -> None:
    started = time.monotonic()
    with StowServer([silent] * 50) as trainer:
        report, _ = send(forward(trainer.url, timeout_s=0.2), some(64))
    assert report.retry is not None
    assert report.retry.code == "forward.line"
    assert len(report.remaining) == 64
    assert time.monotonic() - started < 4


def test_what_the_caller_committed_is_known_before_the_pass_ends() -> None:
    with StowServer() as trainer:
        seen: list[int] = []
        sender = StowTrainer(forward(trainer.url, batch_instances=2))
        sender.send(some(6), on_result=lambda *_: seen.append(len(trainer.requests)))
        sender.close()
    assert seen == [1, 1, 2, 2, 3, 3]


def test_a_draining_node_finishes_what_is_in_flight_and_begins_nothing_more() -> None:
    with StowServer() as trainer:
        sender = StowTrainer(forward(trainer.url, batch_instances=2))
        report = sender.send(some(10), on_result=lambda *_: sender.drain())
        sender.close()
        assert len(trainer.requests) == 1
    assert report.delivered == 2
    assert report.retry is not None
    assert (report.retry.code, report.retry.counts) == ("forward.draining", False)
    assert len(report.remaining) == 8


def _spoiled(number: int, how: Callable[[CleanObject], CleanObject]) -> list[CleanObject]:
    return [how(one) if at == number else one for at, one in enumerate(some(4))]


def _identity_left_in(one: CleanObject) -> CleanObject:
    return clean_object(2, part10=clean_part10(2, change=lambda image: setattr(image, "PatientIdentityRemoved", "NO")))


def _cannot_be_opened(one: CleanObject) -> CleanObject:
    def read() -> bytes:
        raise Quarantine("spool.key-destroyed", "the key of this study was destroyed")

    return replace(one, read=read)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (_identity_left_in, "forward.gate:identity-not-removed"),
        (lambda one: replace(one, digest="0" * 64), "forward.gate:hash"),
        (lambda one: replace(one, pixel_risk="ultrasound"), "forward.gate:pixels"),
        (_cannot_be_opened, "spool.key-destroyed"),
    ],
)
def test_what_the_last_gate_stops_never_arrives_and_its_neighbours_do(
    how: Callable[[CleanObject], CleanObject], code: str
) -> None:
    objects = _spoiled(2, how)
    with StowServer() as trainer:
        report, outcomes = send(forward(trainer.url), objects)
        assert set(trainer.held) == {uid_of("sop", number) for number in (0, 1, 3)}
        assert all(uid_of("sop", 2) not in request.uids for request in trainer.requests)
    assert report.withheld == {uid_of("sop", 2): code}
    assert (uid_of("sop", 2), DeliveryState.WITHHELD, code) in outcomes
    assert report.delivered == 3
    assert report.retry is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "trainer.example/studies",
        "ftp://trainer.example/studies",
        "https://user:hunter2@trainer.example/studies",
        "http://trainer.example/studies",
        "https://trainer.example/studies?key=hunter2",
    ],
)
def test_an_unusable_url_stops_the_role_without_repeating_it(url: str) -> None:
    with pytest.raises(Stop) as stopped:
        StowTrainer(Forward(url=url))
    assert stopped.value.code == "forward.url"
    assert "hunter2" not in str(stopped.value)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server.pem and client.pem (key and certificate), rogue.pem of another authority."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    host = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")

    def authority(name: str) -> None:
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")

    def leaf(name: str, by: str) -> None:
        signed = ("-CA", f"{by}.pem", "-CAkey", f"{by}.key")
        openssl(*new, *host, *signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
        (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())

    authority("ca")
    authority("other-ca")
    leaf("server", "ca")
    leaf("client", "ca")
    leaf("rogue", "other-ca")
    return folder


def _server_context(pki: Path, *, mutual: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.pem")
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki / "ca.pem")
    return context


def test_a_client_certificate_opens_a_mutual_tls_trainer(pki: Path) -> None:
    with StowServer(tls=_server_context(pki, mutual=True)) as trainer:
        config = forward(trainer.url, ca_file=pki / "ca.pem", client_cert=pki / "client.pem")
        report, _ = send(config, some(2))
        assert len(trainer.held) == 2
    assert report.delivered == 2


def test_a_rogue_client_certificate_delivers_nothing(pki: Path) -> None:
    with StowServer(tls=_server_context(pki, mutual=True)) as trainer:
        config = forward(trainer.url, ca_file=pki / "ca.pem", client_cert=pki / "rogue.pem")
        report, _ = send(config, some(2))
        assert trainer.requests == []
    assert report.delivered == 0
    assert report.retry is not None


def test_a_trainer_of_an_unknown_authority_gets_nothing(pki: Path) -> None:
    with StowServer(tls=_server_context(pki)) as trainer:
        report, _ = send(forward(trainer.url, ca_file=pki / "other-ca.pem"), some(2))
        assert trainer.requests == []
    assert report.retry is not None
    assert report.retry.code == "forward.tls-handshake"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_tls_1_1_is_not_spoken(pki: Path) -> None:
    context = _server_context(pki)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with StowServer(tls=context) as trainer:
        report, _ = send(forward(trainer.url, ca_file=pki / "ca.pem"), some(1))
        assert trainer.requests == []
    assert report.retry is not None
    assert report.retry.code == "forward.tls-handshake"


def test_missing_tls_files_stop_the_role(tmp_path: Path) -> None:
    with pytest.raises(Stop) as stopped:
        StowTrainer(Forward(url="https://trainer.example/studies", ca_file=tmp_path / "missing.pem"))
    assert stopped.value.code == "forward.tls"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    with StowServer() as trainer:
        report, _ = send(forward(trainer.url), some(1))
    assert report.delivered == 1

"""StowTrainer against a real Orthanc with its DICOMweb plugin."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from edge_node.config.schema import Forward
from edge_node.domain.study import DeliveryState
from edge_node.forward.parcel import plan
from edge_node.forward.stow import StowTrainer
from tests.clean_objects import SYNTAXES, clean_object, clean_part10, uid_of
from tests.integration.peers_orthanc import Orthanc


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(
        tmp_path_factory.mktemp("trainer"),
        extra={"AuthenticationEnabled": True, "RegisteredUsers": {"edge": "right"}, "OverwriteInstances": False},
    ) as peer:
        yield peer


@pytest.fixture
def config(orthanc: Orthanc, tmp_path: Path) -> Forward:
    password = tmp_path / "password"
    password.write_text("right\n")
    password.chmod(0o400)
    return Forward(url=orthanc.stow_url, user="edge", password_file=password, batch_instances=5)


def test_orthanc_holds_what_was_sent_byte_for_byte(orthanc: Orthanc, config: Forward) -> None:
    objects = [clean_object(number, pixel_bytes=51_200) for number in range(23)]
    sender = StowTrainer(config)
    report = sender.send(objects, on_result=lambda *_: None)
    sender.close()
    held = {uid: sha256(file).hexdigest() for uid, file in orthanc.instances().items()}
    assert report.delivered == 23
    assert report.retry is None
    assert {one.sop_uid: sha256(one.read()).hexdigest() for one in objects}.items() <= held.items()


def test_sending_again_to_orthanc_is_delivered_again_and_changes_nothing(orthanc: Orthanc, config: Forward) -> None:
    objects = [clean_object(number) for number in range(30, 35)]
    sender = StowTrainer(config)
    first = sender.send(objects, on_result=lambda *_: None)
    before = orthanc.instances()
    second = sender.send(objects, on_result=lambda *_: None)
    sender.close()
    assert (first.delivered, second.delivered) == (5, 5)
    assert orthanc.instances() == before


def test_orthanc_takes_every_encoding_the_gate_can_read(orthanc: Orthanc, config: Forward) -> None:
    objects = [clean_object(40 + at, syntax=syntax) for at, syntax in enumerate(SYNTAXES)]
    sender = StowTrainer(config)
    report = sender.send(objects, on_result=lambda *_: None)
    sender.close()
    assert report.delivered == len(SYNTAXES)
    assert report.withheld == {}


def test_a_wrong_password_delivers_nothing_to_orthanc(orthanc: Orthanc, config: Forward, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    wrong.chmod(0o400)
    sender = StowTrainer(config.model_copy(update={"password_file": wrong}))
    report = sender.send([clean_object(60)], on_result=lambda *_: None)
    sender.close()
    assert report.delivered == 0
    assert report.retry is not None
    assert report.retry.code == "forward.unauthorised"
    assert uid_of("sop", 60) not in orthanc.instances()


def test_uncleaned_pixels_stay_home_even_without_a_plan(orthanc: Orthanc, config: Forward) -> None:
    risky = clean_object(70, pixel_risk="ultrasound")
    to_send, held = plan([clean_object(71), risky])
    assert [one.sop_uid for one in to_send] == [uid_of("sop", 71)]
    outcomes: list[tuple[str, DeliveryState, str]] = []
    sender = StowTrainer(config)
    sender.send([*to_send, risky], on_result=lambda *outcome: outcomes.append(outcome))
    sender.close()
    assert held[risky.sop_uid].reason == "pixels.uncleaned:ultrasound"
    assert (risky.sop_uid, DeliveryState.WITHHELD, "forward.gate:pixels") in outcomes
    assert risky.sop_uid not in orthanc.instances()


def test_an_object_with_identity_in_it_never_reaches_orthanc(orthanc: Orthanc, config: Forward) -> None:
    dirty = clean_object(80, part10=clean_part10(80, change=lambda image: image.__delattr__("PatientIdentityRemoved")))
    sender = StowTrainer(config)
    report = sender.send([dirty, clean_object(81)], on_result=lambda *_: None)
    sender.close()
    held = orthanc.instances()
    assert report.withheld == {dirty.sop_uid: "forward.gate:identity-not-removed"}
    assert dirty.sop_uid not in held
    assert uid_of("sop", 81) in held

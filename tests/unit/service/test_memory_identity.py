"""A vault key in memory: who has one, what a new run destroys, what waits, and what commands say without it."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Iterator
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from edge_node.config.checks import contradictions
from edge_node.config.load import Loaded
from edge_node.config.retrieval import Pull
from edge_node.config.schema import Config, Deid, DeidRule, Node, PeerEntry, Worklist
from edge_node.config.secrets import KEY_BYTES, MemoryVault, RoleKeys
from edge_node.domain.errors import Quarantine, Retry, Stop
from edge_node.domain.pull import Kind, Wanted
from edge_node.domain.study import KeyClass, Role, TaskState
from edge_node.pipeline import Done
from edge_node.receive.landing import Arrival
from edge_node.receive.local import LocalDoor
from edge_node.service import intake_worker, memory_identity, roles
from edge_node.service.compute_steps import purge_work
from edge_node.service.doctor import examine
from edge_node.service.memory_identity import after_identity, with_identity
from edge_node.service.node import open_node
from edge_node.service.pull_requests import named, patient_of_study
from edge_node.service.recovering import plan, questions
from edge_node.service.reidentify import Request, by_vault
from edge_node.service.rekey import overview, rotate
from edge_node.service.release import release, release_item
from edge_node.service.setup import initialise
from edge_node.service.snapshot import snapshot, study_detail
from edge_node.store import lost, pulls, tables
from edge_node.store.lost import Lost
from edge_node.store.pulls import Pulls
from edge_node.store.receipt import Receipt
from edge_node.store.tasks import Task, enqueue
from tests.unit.deid.objects import instance_of, received
from tests.unit.service.site import image, needles_in


class Run:
    """One run of the dicom role after another over one ledger."""

    def __init__(self, config: Config) -> None:
        self.config = config
        initialise(config)
        self.begin()

    def begin(self) -> None:
        self.begun = memory_identity.begin(self.config)
        self.node = self.begun.node

    def again(self) -> None:
        """The power goes, and comes back."""
        self.node.database.close()
        self.begun.held.release()
        self.begin()

    def take(self, *objects: Dataset) -> str:
        accept = intake_worker.make_intake(self.config, self.begun.vault)
        for one in objects:
            [receipt] = accept([received(one)])
            assert isinstance(receipt, Receipt), receipt
        return receipt.study_key

    def triaged(self, key: str, *, state: str = TaskState.READY) -> None:
        """The evidence of the study is to be written."""
        with self.node.database.write() as connection:
            connection.execute(tables.study.update().where(tables.study.c.study_key == key).values(state="TRIAGED"))
            enqueue(connection, key, 1, "worklist", target="evidence")
            connection.execute(tables.task.update().where(tables.task.c.study_key == key).values(state=state))

    def rows(self, name: str) -> list[dict[str, Any]]:
        with self.node.database.read() as connection:
            return [dict(row._mapping) for row in connection.execute(select(tables.metadata.tables[name]))]

    def waiting(self) -> list[str]:
        return [row["study_key"] for row in self.rows("lost_identity")]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(roles, "harden", lambda: None)
    monkeypatch.setattr(roles.logs, "configure", lambda *_args, **_named: None)
    return Config(
        node=Node(data_dir=tmp_path / "data", identity="memory"),
        worklist=Worklist(mode="information", writers=["evidence"]),
        pull=Pull(method="get"),
        peers={"pacs": PeerEntry(ae_title="PACS", host="127.0.0.1", port=104)},
    )


@pytest.fixture
def run(config: Config) -> Iterator[Run]:
    one = Run(config)
    yield one
    one.node.database.close()


def test_there_is_no_key_of_identity_on_the_disk_and_each_run_has_another(run: Run, config: Config) -> None:
    files = list((config.node.data_dir / "keys").iterdir())
    assert {path.name for path in files} == {"clean.key", "quarantine.key", "pseudonym.key"}
    first = run.begun.vault
    assert first is not None
    assert len(first.secret) == KEY_BYTES
    run.take(image(1))
    assert needles_in(config.node.data_dir) == []
    assert not [
        path for path in config.node.data_dir.rglob("*") if path.is_file() and first.secret in path.read_bytes()
    ]
    run.again()
    assert run.begun.vault is not None
    assert run.begun.vault.secret != first.secret


def test_the_key_shows_nowhere_that_words_go(config: Config) -> None:
    vault = MemoryVault.fresh()
    initialise(config)
    keys = RoleKeys(Role.DICOM, config, vault=vault)
    assert keys.key("vault") == vault.secret
    for shown in (repr(vault), repr(keys), repr(partial(intake_worker.make_intake, vault=vault))):
        assert vault.secret.hex() not in shown
        assert repr(vault.secret) not in shown
    assert pickle.loads(pickle.dumps(vault)) == vault


def test_only_the_dicom_role_uses_a_key_in_memory(config: Config) -> None:
    initialise(config)
    for role in (Role.COMPUTE, Role.FORWARD, Role.STATUS):
        assert "vault" not in RoleKeys(role, config, vault=MemoryVault.fresh()).names
    with pytest.raises(Stop, match=r"secrets\.not-this-role"):
        RoleKeys(Role.DICOM, config).key("vault")


def seen_by_a_child(vault: MemoryVault, pipe: Any) -> None:
    pid = Path("/proc/self")
    pipe.send((vault.secret, (pid / "environ").read_bytes(), (pid / "cmdline").read_bytes()))


def test_a_child_gets_the_key_by_neither_environment_nor_command_line() -> None:
    vault = MemoryVault.fresh()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=partial(seen_by_a_child, vault), args=(theirs,))
    child.start()
    secret, environment, command = ours.recv()
    child.join(10)
    assert secret == vault.secret
    for where in (environment, command):
        assert vault.secret not in where
        assert vault.secret.hex().encode() not in where


def test_what_an_earlier_run_sealed_is_destroyed_and_who_is_needed_waits(run: Run) -> None:
    due, dead, written = (run.take(image(1, study=number)) for number in (1, 2, 3))
    run.triaged(due)
    run.triaged(dead, state=TaskState.DEAD)
    run.triaged(written, state=TaskState.DONE)
    coming = run.take(image(1, study=4))
    run.again()
    assert run.rows("envelope") == []
    assert [row for row in run.rows("data_key") if row["class"] == KeyClass.ENVELOPE] == []
    assert sorted(run.waiting()) == sorted([due, dead, coming])
    with run.node.database.read() as connection:
        states = {one.study_key: (one.settled, one.writers) for one in lost.lost(connection)}
    assert states == {due: (True, True), dead: (True, False), coming: (False, None)}
    [row] = [row for row in run.rows("task") if row["study_key"] == due]
    assert row["code"] == "identity.asking"
    run.again()
    assert sorted(run.waiting()) == sorted([due, dead, coming]), "who waited goes on waiting"


def test_a_node_that_writes_nothing_asks_for_nobody(run: Run) -> None:
    run.config = run.config.model_copy(update={"worklist": Worklist(mode="shadow")})
    run.triaged(run.take(image(1)))
    run.again()
    assert run.waiting() == []
    assert run.rows("envelope") == []


def test_work_waits_for_the_identity_and_says_so_and_dies_when_its_time_is_over(run: Run) -> None:
    key = run.take(image(1))
    run.triaged(key)
    run.again()
    work = after_identity(run.node, lambda _task: Done("written"))
    assert run.node.tasks.claim("worklist", "evidence", 60.0) is None, "nobody tries before anybody was asked"
    with run.node.database.write() as connection:
        connection.execute(tables.task.update().values(not_before=0.0))
    task = run.node.tasks.claim("worklist", "evidence", 60.0)
    assert isinstance(task, Task)
    with pytest.raises(Retry, match=r"identity\.asking") as caught:
        work(task)
    assert not caught.value.counts
    assert run.node.tasks.put_back(task, caught.value, max_age_s=3600.0) is TaskState.READY
    with run.node.database.write() as connection:
        connection.execute(tables.task.update().values(not_before=0.0, created_at=0.0))
    task = run.node.tasks.claim("worklist", "evidence", 60.0)
    assert isinstance(task, Task)
    assert run.node.tasks.put_back(task, caught.value, max_age_s=3600.0) is TaskState.DEAD
    with run.node.database.write() as connection:
        assert lost.recovered(connection, key, "test")
    assert work(task).code == "written"


def test_only_what_fails_for_want_of_identity_waits_where_work_may_do_without(run: Run) -> None:
    key = run.take(image(1))
    run.again()
    task = Task(1, key, 1, "worklist", "commitment", 1, 0, 0.0)

    def wants(_task: Task) -> Done:
        run.node.vault.open(key)
        raise AssertionError("there is no identity")

    def fails(_task: Task) -> Done:
        raise Quarantine("worklist.not-committed", "of its own")

    assert with_identity(run.node, lambda _task: Done("committed"))(task).code == "committed"
    with pytest.raises(Retry, match=r"identity\.asking"):
        with_identity(run.node, wants)(task)
    with pytest.raises(Quarantine, match=r"worklist\.not-committed"):
        with_identity(run.node, fails)(task)


def test_a_study_that_nobody_waits_for_has_its_identity_again_when_it_is_sent_again(run: Run) -> None:
    key = run.take(image(1))
    run.triaged(key, state=TaskState.DONE)
    run.again()
    assert run.waiting() == []
    run.take(image(1))
    assert run.node.vault.open(key), "so that its result can be taken back"


def test_an_identity_whose_time_is_over_is_asked_for_no_more_and_what_comes_of_it_is_destroyed_anew(run: Run) -> None:
    key = run.take(image(1))
    run.again()
    run.triaged(key, state=TaskState.DONE)
    with run.node.database.write() as connection:
        enqueue(connection, key, 1, "purge", target="envelope")
    assert run.waiting() == [key]
    task = run.node.tasks.claim("purge", "envelope", 60.0)
    assert isinstance(task, Task)
    done = purge_work(run.node)(task)
    with run.node.database.write() as connection:
        assert done.commit is not None
        done.commit(connection)
        run.node.tasks.done(connection, task, done.code, {})
    assert run.waiting() == []
    run.take(image(1))
    [purge] = [row for row in run.rows("task") if row["step"] == "purge"]
    assert run.rows("envelope") != []
    assert purge["state"] == TaskState.READY, "what was sealed again is destroyed again"


def test_what_was_asked_to_be_pulled_ends_with_the_key_that_sealed_it(run: Run) -> None:
    queue = Pulls(run.node.database, run.node.keyring, "test")
    wanted = Wanted(Kind.PRIORS, "PAT-420042")
    job, _ = queue.ask([named(run.node.keys.key("pseudonym"), wanted)], "a test", again=False)
    run.again()
    with run.node.database.read() as connection:
        told = pulls.job(connection, job)
    assert told is not None
    assert (told["state"], told["cancelled"]) == ("CANCELLED", 1)
    assert Pulls(run.node.database, run.node.keyring, "test").claim() is None


def test_work_that_can_do_without_identity_has_patience_and_then_goes_on(run: Run) -> None:
    key = run.take(image(1))
    run.again()
    work = after_identity(run.node, lambda _task: Done("order.unknown"), 300.0)
    fresh, old = (Task(1, key, 1, "order", "", 1, 0, time.time() - age) for age in (1.0, 301.0))
    with pytest.raises(Retry, match=r"identity\.asking"):
        work(fresh)
    assert work(old).code == "order.unknown"


def test_a_study_finds_its_identity_under_whichever_rule_it_comes_again(run: Run) -> None:
    plain = run.config
    rule = DeidRule(calling_ae_titles=["MODALITY"], trial="TRIAL-A")
    run.config = plain.model_copy(update={"deid": Deid(rules=[rule])})
    key = run.take(image(1), image(2))
    run.config = plain  # as from an archive: another calling AE title, to which no rule fits
    run.again()
    assert run.take(image(1), image(2)) == key
    assert run.rows("quarantine") == []
    own, instances = run.node.vault.open(key)
    assert "PAT-420042" in own
    assert set(instances) == {row["sop_uid"] for row in run.rows("instance")}


def test_the_running_node_takes_in_what_is_released_from_quarantine(run: Run, config: Config) -> None:
    accept = intake_worker.make_intake(config, run.begun.vault)
    held = image(1)
    held.Manufacturer = "Beeblebrox & Zaphod"
    [receipt] = accept([received(held)])
    assert isinstance(receipt, Receipt)
    broken = instance_of(b"\x08\x00broken", "1.2.840.10008.1.2.1", "1.2.3", "1.2.4")
    [receipt] = accept([broken])
    assert isinstance(receipt, Receipt)
    [item] = [row["item"] for row in run.rows("quarantine")]
    with pytest.raises(Retry, match=r"receive\.not-running"):
        release_item(config, item)
    tried = list(release(config, [item, item]))  # where nothing can be taken in, the rest is not tried
    assert [type(one.outcome) for one in tried] == [Retry]

    def take(arrival: Arrival) -> Receipt:
        with arrival.opened() as landed:
            [answer] = accept([landed])
        assert isinstance(answer, Receipt)
        return answer

    door = LocalDoor(
        config.node.data_dir, take, has_room=lambda: True, largest=1_000_000, tell=lambda _about, _facts: None
    )
    door.start()
    try:
        with pytest.raises(Quarantine):  # still cannot be read, and stays where it is
            release_item(config, item)
    finally:
        door.stop(1.0)
    assert [row["state"] for row in run.rows("quarantine")] == ["HELD"]


def test_status_and_study_show_why_a_study_waits(run: Run, config: Config) -> None:
    key = run.take(image(1))
    with run.node.database.read() as connection:
        assert "identity" not in study_detail(connection, key)
    run.again()
    [check] = [one for one in examine(Loaded(config, None, {})) if one.name == "identity"]
    assert check.result == "warn"
    assert "identity.asking" in check.detail
    [row] = snapshot(config).waiting_for_identity
    assert (row["study"], row["code"], row["looks"]) == (key, "identity.asking", 0)
    with run.node.database.read() as connection:
        assert study_detail(connection, key)["identity"]["code"] == "identity.asking"


def test_a_second_dicom_role_may_not_destroy_what_the_first_holds(run: Run, config: Config) -> None:
    key = run.take(image(1))
    with pytest.raises(Stop, match=r"identity\.in-use"):
        memory_identity.begin(config)
    assert run.node.vault.open(key)


@pytest.mark.parametrize("first", ["memory", "disk"])
def test_nor_may_one_with_the_key_in_another_place(run: Run, first: str) -> None:
    memory = run.config
    disk = memory.model_copy(update={"node": Node(data_dir=memory.node.data_dir)})
    initialise(disk)
    run.config, other = (memory, disk) if first == "memory" else (disk, memory)
    run.again()
    key = run.take(image(1))
    with pytest.raises(Stop, match=r"identity\.in-use"):
        memory_identity.begin(other)
    assert run.node.vault.open(key)


def test_a_worker_of_an_earlier_run_makes_no_key_that_nobody_could_open(run: Run) -> None:
    old = intake_worker.make_intake(run.config, run.begun.vault)
    run.again()
    [answer] = old([received(image(1))])
    assert isinstance(answer, Retry)
    assert answer.code == "identity.restarted"
    assert run.rows("data_key") == [] or {row["class"] for row in run.rows("data_key")} == {KeyClass.CLEAN}
    key = run.take(image(1))
    assert run.node.vault.open(key)


def test_back_on_the_disk_nothing_is_left_that_does_not_open(run: Run) -> None:
    key = run.take(image(1))
    run.triaged(key)
    run.config = run.config.model_copy(update={"node": Node(data_dir=run.config.node.data_dir)})
    initialise(run.config)
    run.again()
    assert (run.waiting(), run.rows("envelope")) == ([], [])
    run.take(image(2))
    run.again()
    assert run.node.vault.open(key), "what is sealed now stays"


def test_in_memory_from_the_disk_destroys_what_the_key_on_the_disk_opens(run: Run) -> None:
    on_disk = run.config.model_copy(update={"node": Node(data_dir=run.config.node.data_dir)})
    memory, run.config = run.config, on_disk
    initialise(on_disk)
    run.again()
    key = run.take(image(1))
    run.config = memory
    run.again()
    with pytest.raises(Quarantine, match=r"vault\.destroyed"):
        run.node.vault.open(key)
    assert run.waiting() == [key]
    [check] = [one for one in examine(Loaded(memory, None, {})) if one.name == "node keys"]
    assert check.result == "warn"
    assert "vault.key" in check.detail


def test_commands_that_need_the_key_say_that_they_have_none(run: Run, config: Config) -> None:
    key = run.take(image(1))
    node = open_node(config, Role.DICOM)
    for command in (
        lambda: by_vault(config, Request(key, "a reason to look")),
        lambda: rotate(config, "vault"),
        lambda: patient_of_study(node, key),
    ):
        with pytest.raises(Stop, match=r"identity\.in-memory") as caught:
            command()
        assert caught.value.hint
        assert caught.value.exit_code == 77
    with pytest.raises(Stop, match=r"store\.key-not-mine"):
        node.vault.open(key)
    node.database.close()


def test_the_list_of_keys_shows_where_the_vault_key_is(run: Run, config: Config) -> None:
    run.take(image(1))
    rows = {row["key"]: row for row in overview(config)}
    assert (rows["vault"]["id"], rows["vault"]["data_keys"]) == ("in memory", 1)


def test_a_node_that_could_not_ask_anybody_is_told_so(config: Config) -> None:
    assert list(contradictions(config)) == []
    [found] = contradictions(config.model_copy(update={"pull": Pull()}))
    assert found.keys == ("node.identity", "pull.method")


def waiting(number: int, *, looks: int = 0, modalities: tuple[str, ...] = ("CT",), day: int = 10) -> Lost:
    at = datetime(2026, 6, day, 12, 0).astimezone().timestamp()
    return Lost(f"STUDY{number}", modalities, at, at, looks, 0.0, "identity.asking", "", True, True)


def test_the_day_of_receipt_is_asked_first_then_around_it_then_far_back() -> None:
    first = list(questions(waiting(1)))
    assert first[:3] == [(date(2026, 6, 10), "CT"), (date(2026, 6, 9), "CT"), (date(2026, 6, 11), "CT")]
    assert len(first) == 5
    assert {modality for _, modality in questions(waiting(1, looks=1))} == {""}
    assert [len(list(questions(waiting(1, looks=n)))) for n in (1, 2, 3, 11, 12, 14)] == [33, 368, 9, 9, 5, 368]
    assert {modality for _, modality in questions(waiting(1, modalities=("CT", "SR")))} == {"CT", "SR"}


def test_studies_of_one_day_are_asked_for_together() -> None:
    asked = plan([waiting(number) for number in range(50)])
    assert len(asked) == 5
    assert all(len(keys) == 50 for keys in asked.values())

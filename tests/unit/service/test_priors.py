"""Which earlier studies are asked for, how long triage waits for them, and what a prior never becomes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import select, update
from structlog.testing import capture_logs

from edge_node.config.retrieval import Priors as Options
from edge_node.deid import study_key_of
from edge_node.domain.errors import Quarantine, Retry
from edge_node.domain.finding import TriageOutcome, TriageResult, result_from_json, result_to_json
from edge_node.domain.priors import PriorAsk, Priors
from edge_node.domain.pull import Kind, Match, Pulled, Wanted
from edge_node.domain.study import Role, StudyState, TaskState
from edge_node.pipeline import Done
from edge_node.service import intake_worker, prior_wishes
from edge_node.service.compute_steps import judging, settle_due
from edge_node.service.node import Node, open_node
from edge_node.service.prior_requests import choose
from edge_node.service.prior_wishes import PriorWishes
from edge_node.service.roles import bench, targets_of
from edge_node.store import priors, studies, tables
from edge_node.store.pulls import Named, Pulls, cancel
from edge_node.store.receipt import Receipt, Received
from edge_node.store.tables import pull_item, study, task
from edge_node.triage.card_tables import PriorsTable
from tests.unit.deid.objects import received
from tests.unit.service.site import Site, image, site

__all__ = ["site"]
ACTOR = "test/dicom"
CT = 'Modality == "CT"'
DAY = date(2024, 2, 29)


def ask(most: int = 1, within_days: int = 730, rule: str = CT, *, speaks: bool = True, model: str = "m 1") -> PriorAsk:
    return PriorAsk(model, most, within_days, rule, speaks)


def made(number: int, days: int, *modalities: str, description: str = "") -> Match:
    when = f"{DAY - timedelta(days):%Y%m%d}"
    return Match(f"1.2.{number}", 1, when, modalities or ("CT",), description)


def chosen(found: list[Match], *asks: PriorAsk) -> list[str]:
    return [one.study_uid for one in choose(asks or (ask(),), found, DAY)]


def test_the_newest_that_fits_the_rule_and_the_time_is_chosen() -> None:
    found = [made(1, 400), made(2, 30, "MR"), made(3, 60), made(4, 731), made(5, 0), made(6, -1)]
    assert chosen(found) == ["1.2.3"]
    assert chosen(found, ask(5)) == ["1.2.3", "1.2.1"]
    assert chosen(found, ask(), ask(rule='Modality == "MR"', model="n 1")) == ["1.2.2", "1.2.3"]


def test_a_study_may_be_told_by_its_description_and_one_without_a_date_is_no_prior() -> None:
    head = ask(rule='Modality == "CT" and StudyDescription ~ "head"')
    found = [made(1, 10, description="CT Abdomen"), made(2, 20, "CT", "SR", description="CT HEAD WO"), made(3, 5)]
    assert chosen(found, head) == ["1.2.2"]
    assert chosen([Match("1.2.9", 1, "", ("CT",)), Match("1.2.8", 1, "20240231", ("CT",))]) == []


@given(st.lists(st.tuples(st.integers(-40, 900), st.sampled_from(["CT", "MR"])), max_size=12), st.integers(1, 5))
def test_never_more_than_asked_never_the_day_itself_and_always_the_newest(
    days: list[tuple[int, str]], most: int
) -> None:
    found = [made(number, past, modality) for number, (past, modality) in enumerate(days)]
    picked = choose([ask(most)], found, DAY)
    fits = sorted((one.date for one, (past, kind) in zip(found, days, strict=True) if 0 < past <= 730 and kind == "CT"))
    assert [one.date for one in picked] == fits[::-1][:most]


def test_a_card_may_only_ask_by_what_an_archive_says_of_a_study() -> None:
    assert PriorsTable(rule=CT).max == 1
    for wrong in ({"rule": 'BodyPartExamined == "HEAD"'}, {"rule": CT, "max": 6}, {"rule": CT, "within_days": 0}):
        with pytest.raises(ValidationError):
            PriorsTable.model_validate(wrong)


def test_a_result_keeps_which_priors_were_there() -> None:
    told = TriageResult(TriageOutcome.SKIPPED, "x", priors=Priors(priors.HERE, ("S1", "S2")))
    assert result_from_json(result_to_json(told)) == told
    assert "priors" not in result_to_json(TriageResult(TriageOutcome.SKIPPED, "x"))


class Bed:
    """A site with a compute role that settles at once, and the queue of pulls."""

    def __init__(self, site: Site, **options: float) -> None:
        worklist = site.config.worklist.model_copy(update={"mode": "live"})
        settle = site.config.settle.model_copy(update={"quiet_s": 0.001, "quiet_by_modality": {}})
        changes = {"worklist": worklist, "settle": settle, "priors": Options.model_validate(options)}
        self.site = site
        self.config = site.config.model_copy(update=changes)
        self.node: Node = open_node(self.config, Role.COMPUTE)
        self.dicom: Node = open_node(self.config, Role.DICOM)
        self.queue = Pulls(self.dicom.database, self.dicom.keyring, ACTOR)
        self.bench = judging(self.node, None, targets_of(self.config))

    def take(self, *numbers: int, study: int = 1) -> str:
        return str(self.site.take(*(image(number, study=study) for number in numbers))[0].study_key)

    def wish(self, study_key: str, *, speaks: bool = True) -> None:
        with self.node.database.write() as connection:
            priors.wish(connection, study_key, [ask(speaks=speaks)], ACTOR)

    def pull(self, wanted_by: str, *studies: str) -> str:
        """A job whose search was made, with these studies as priors."""
        search = Named(Wanted(Kind.PRIORS, "P"), "search")
        job, _ = self.queue.ask([search], "priors", again=False, wanted_by=wanted_by)
        item = self.queue.claim(awaited=True)
        assert item is not None
        assert item.wanted_by == wanted_by
        named = [Named(Wanted(Kind.STUDY, f"1.2.{key}"), f"R{key}", key, prior=True) for key in studies]
        self.queue.found(item, named)
        return job

    def settle(self) -> None:
        time.sleep(0.01)
        settle_due(self.node)

    def triage(self) -> None:
        while (claimed := self.node.tasks.claim("triage", None, 60.0)) is not None:
            self.bench.one(claimed)

    def work(self, study_key: str) -> dict[tuple[str, str], str]:
        with self.node.database.read() as connection:
            rows = connection.execute(select(task).where(task.c.study_key == study_key)).all()
        return {(row.step, row.target): row.state for row in rows}

    def due(self, study_key: str) -> float:
        with self.node.database.read() as connection:
            mine = (task.c.study_key == study_key) & (task.c.step == "triage")
            return float(connection.execute(select(task.c.not_before).where(mine)).scalar_one())

    def result(self, study_key: str) -> TriageResult | None:
        return self.node.clean.finding(study_key, 1)

    def state(self, study_key: str) -> str:
        with self.node.database.read() as connection:
            return str(studies.get(connection, study_key)._mapping["state"])

    def told(self, study_key: str) -> list[tuple[str, str]]:
        told = [one for one in self.site.audited() if one.study_key == study_key]
        return [(one.action, str(one.detail.get("code", ""))) for one in told]


def test_triage_waits_for_priors_up_to_its_bound_and_begins_when_they_are_here(site: Site) -> None:
    bed = Bed(site, wait_s=40.0)
    now, earlier = bed.take(1), "EARLIER"
    bed.wish(now)
    bed.settle()
    assert 35 < bed.due(now) - time.time() <= 40
    bed.triage()
    assert bed.result(now) is None
    bed.pull(now, earlier)
    item = bed.queue.claim(awaited=True)
    assert item is not None
    assert item.prior
    bed.queue.mark_prior(item, [earlier])
    bed.queue.done(item, Pulled("pull.complete", 2))
    assert bed.due(now) == 0.0
    bed.triage()
    result = bed.result(now)
    assert result is not None
    assert result.priors == Priors(priors.HERE, (earlier,))
    assert bed.told(now)[-1] == ("triage.done", "triage.skipped")
    assert [entry for entry in bed.told(now) if entry[0].startswith("prior.")] == [
        ("prior.wanted", ""),
        ("prior.ended", priors.HERE),
    ]


def test_what_has_not_come_by_then_is_done_without_and_not_fetched_any_more(site: Site) -> None:
    bed = Bed(site, wait_s=0.05)
    now = bed.take(1)
    bed.wish(now)
    bed.settle()
    bed.pull(now, "ONE", "TWO")
    first = bed.queue.claim(awaited=True)
    assert first is not None
    bed.queue.done(first, Pulled("pull.complete", 1))
    time.sleep(0.06)
    bed.triage()
    result = bed.result(now)
    assert result is not None
    assert result.priors == Priors(priors.TOO_LATE, ("ONE",))
    assert bed.queue.claim() is None
    with bed.node.database.read() as connection:
        assert sorted(connection.execute(select(pull_item.c.state)).scalars()) == ["CANCELLED", "DONE", "DONE"]
        owners = {row.owner for row in connection.execute(select(tables.data_key))}
        assert owners == {now}, "the key of what was asked for is destroyed"
        assert priors.asks_of(connection, now) == ()


@pytest.mark.parametrize(("found", "code"), [(0, priors.NONE), (1, priors.FAILED)])
def test_nothing_found_or_nothing_brought_keeps_nobody_waiting(site: Site, found: int, code: str) -> None:
    bed = Bed(site, wait_s=60.0)
    now = bed.take(1)
    bed.wish(now)
    bed.settle()
    bed.pull(now, *["ONE"][:found])
    if found:
        item = bed.queue.claim()
        assert item is not None
        bed.queue.failed(item, Quarantine("pull.not-found", "x"))
    bed.triage()
    result = bed.result(now)
    assert result is not None
    assert result.priors == Priors(code)


def test_nobody_waits_for_a_model_in_shadow_nor_where_nothing_was_wished(site: Site) -> None:
    bed = Bed(site, wait_s=60.0)
    shadow, plain = bed.take(1), bed.take(1, study=2)
    bed.wish(shadow, speaks=False)
    bed.settle()
    assert (bed.due(shadow), bed.due(plain)) == (0.0, 0.0)
    bed.triage()
    told = {key: result.priors for key in (shadow, plain) if (result := bed.result(key))}
    assert told == {shadow: Priors(priors.TOO_LATE), plain: None}


def a_prior(bed: Bed) -> str:
    """A study of two images that came as a prior and has settled; its pull has ended."""
    key = study_key_of(bed.dicom.keys.key("pseudonym"), str(image(study=7).StudyInstanceUID))
    bed.wish(wanting := bed.take(1))
    bed.pull(wanting, key)
    item = bed.queue.claim()
    assert item is not None
    assert bed.queue.mark_prior(item, [key])
    assert bed.take(1, 2, study=7) == key
    bed.queue.done(item, Pulled("pull.complete", 2))
    bed.settle()
    return key


def test_a_prior_is_not_judged_not_placed_and_nobody_is_told_but_it_is_kept_and_destroyed_as_usual(site: Site) -> None:
    bed = Bed(site)
    key = a_prior(bed)
    bed.triage()
    assert bed.result(key) is None
    with bed.node.database.read() as connection:
        assert studies.get_reading(connection, key) is None
        assert priors.is_prior(connection, key)
    looked = bench(bed.node, "pixels", lambda _task: Done("pixels.looked"), max_age_s=60.0)
    while (claimed := bed.node.tasks.claim("pixels", None, 60.0)) is not None:
        looked.one(claimed)
    work = bed.work(key)
    assert work["triage", ""] == TaskState.DONE
    assert set(work) == {("triage", ""), ("pixels", ""), ("purge", "envelope"), ("purge", "clean")}
    assert bed.state(key) == StudyState.DELIVERED
    assert ("triage.done", "triage.prior") in bed.told(key)
    assert "study.prior" in [action for action, _ in bed.told(key)]


def test_a_prior_to_which_an_image_comes_long_after_is_read_like_any_other_study(site: Site) -> None:
    bed = Bed(site)
    key = a_prior(bed)
    bed.triage()
    with bed.node.database.write() as connection:
        connection.execute(update(pull_item).values(finished_at=time.time() - 2 * priors.OURS_S))
    assert bed.take(3, study=7) == key
    with bed.node.database.write() as connection:
        connection.execute(update(study).where(study.c.study_key == key).values(last_received_at=time.time()))
    bed.settle()
    bed.triage()
    with bed.node.database.read() as connection:
        assert not priors.is_prior(connection, key)
        assert studies.get_reading(connection, key) is not None
    assert "study.live" in [action for action, _ in bed.told(key)]
    assert ("worklist", "evidence") in bed.work(key)


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_prior_that_is_sent_once_more_is_read_like_any_other_study_unless_we_had_asked(
    site: Site, asked_for: bool
) -> None:
    bed = Bed(site)
    key = a_prior(bed)
    bed.triage()
    if not asked_for:
        with bed.node.database.write() as connection:
            connection.execute(update(pull_item).values(finished_at=time.time() - 2 * priors.OURS_S))
    again = replace(received(image(1, study=7)), received_at=time.time())
    [receipt] = intake_worker.make_intake(bed.config)([again])
    assert isinstance(receipt, Receipt)
    assert receipt.received is Received.DUPLICATE
    bed.settle()
    bed.triage()
    with bed.node.database.read() as connection:
        assert priors.is_prior(connection, key) is asked_for
        assert (studies.get_reading(connection, key) is None) is asked_for
    assert (("worklist", "evidence") in bed.work(key)) is not asked_for


def test_what_is_here_already_to_be_read_never_becomes_a_prior(site: Site) -> None:
    bed = Bed(site)
    live, wanting = bed.take(1, study=7), bed.take(1)
    bed.wish(wanting)
    bed.pull(wanting, live)
    item = bed.queue.claim()
    assert item is not None
    assert not bed.queue.mark_prior(item, [live])
    bed.settle()
    bed.triage()
    with bed.node.database.read() as connection:
        assert studies.get_reading(connection, live) is not None


def test_who_is_waited_for_goes_first_and_goes_alone_when_nothing_else_may(site: Site) -> None:
    bed = Bed(site)
    bed.queue.ask([Named(Wanted(Kind.STUDY, "1.2.3"), "bulk", "BULK")], "a list", again=False)
    assert bed.queue.claim(awaited=True) is None
    bed.wish(wanting := bed.take(1))
    bed.pull(wanting, "ONE")
    keys = [item.study_key for item in (bed.queue.claim(), bed.queue.claim()) if item]
    assert keys == ["ONE", "BULK"]


def test_a_search_that_was_never_made_is_not_taken_for_one_that_found_nothing(site: Site) -> None:
    bed = Bed(site)
    bed.wish(wanting := bed.take(1))
    job, _ = bed.queue.ask([Named(Wanted(Kind.PRIORS, "P"), "search")], "priors", again=False, wanted_by=wanting)
    with bed.node.database.write() as connection:
        cancel(connection, job, ACTOR)
    bed.settle()
    bed.triage()
    result = bed.result(wanting)
    assert result is not None
    assert result.priors == Priors(priors.FAILED)


def test_whatever_ails_the_look_for_priors_no_study_waits_for_it_to_settle(site: Site) -> None:
    class Models:
        """Of which one asks for priors, and no study can begin."""

        def want_priors(self) -> bool:
            return True

    bed = Bed(site)
    first, second = bed.take(1), bed.take(1, study=2)
    time.sleep(0.01)
    settle_due(bed.node, PriorWishes(bed.node, Models()))  # type: ignore[arg-type]
    with bed.node.database.read() as connection:
        assert studies.unsettled(connection) == []
    assert bed.state(first) == bed.state(second) == StudyState.SETTLED


def test_a_wish_that_the_ledger_cannot_take_now_is_written_before_the_study_settles(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Models:
        """Of which one asks for priors of every study."""

        models = ()

        def want_priors(self) -> bool:
            return True

        @contextmanager
        def begin(self) -> Iterator[Models]:
            yield self

    bed, written = Bed(site), priors.wish
    key = bed.take(1)
    wishes = PriorWishes(bed.node, Models())  # type: ignore[arg-type]

    def busy(*_: object, **__: object) -> None:
        raise Retry("ledger.busy", "the ledger is locked by another process")

    monkeypatch.setattr(prior_wishes, "asks", lambda _models, _objects: [ask()])
    monkeypatch.setattr(priors, "wish", busy)
    with capture_logs() as said:
        wishes.look()
    assert [(one["study"], one["code"]) for one in said] == [(key, "ledger.busy")]
    time.sleep(0.01)
    with pytest.raises(Retry):
        settle_due(bed.node, wishes)
    assert bed.state(key) == StudyState.RECEIVING
    monkeypatch.setattr(priors, "wish", written)
    assert settle_due(bed.node, wishes) == 1
    with bed.node.database.read() as connection:
        assert priors.known(connection, [key]) == {key}
    assert bed.told(key)[-2][0] == "prior.wanted"

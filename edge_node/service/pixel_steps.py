"""The compute role's pixel step: what may show identity is masked and looked at again, or stays withheld."""

from __future__ import annotations

from collections import Counter, defaultdict

from sqlalchemy import Connection, select

from edge_node import pipeline
from edge_node.deid.series import NO_DETECTOR, Tools, judge_series, load_finder, tools_of
from edge_node.domain.study import CleanObject, StudyState, TaskState
from edge_node.pipeline import Done
from edge_node.service.node import Node
from edge_node.service.recipes import recipes_in_force
from edge_node.service.unfailing import survivable
from edge_node.store import audit
from edge_node.store.cleaned import CleanedObjects, Staged
from edge_node.store.tables import instance, study
from edge_node.store.tasks import Task, requeue

_OPEN = tuple(state for state in StudyState if state is not StudyState.CLOSED)


def load_tools(node: Node) -> Tools:
    """What the site's recipes and options ask for. Raises Stop for a bad recipe."""
    options = node.config.deid
    return tools_of(
        {chosen.sha256: recipe for chosen, recipe in recipes_in_force(node.config)},
        load_finder(),
        vendor_boxes=options.vendor_boxes,
        deface=options.deface,
        leave=options.pixels_may_leave,
    )


def pixels_work(node: Node, tools: Tools) -> pipeline.Work:
    """Judge every object of the study that was not judged yet, series by series; one bad object holds only itself.

    Raises Quarantine ``pixels.crashed`` of a study that ends the process: all of it stays withheld.
    """
    store = CleanedObjects(node.keyring, node.spool_writer())

    def work(task: Task) -> Done:
        survivable("pixels.crashed", task)
        waiting = node.clean.study(task.study_key).objects
        series: dict[str, list[CleanObject]] = defaultdict(list)
        for one in waiting:
            series[one.series_uid].append(one)
        staged: list[Staged] = []
        told: Counter[str] = Counter()
        freed = 0
        for objects in series.values():
            for judged in judge_series(objects, tools):
                staged.append(store.stage(task.study_key, judged))
                told[judged.pixel_work] += 1
                freed += bool(judged.was.pixel_risk) and not judged.pixel_risk

        def commit(connection: Connection) -> None:
            store.commit(connection, task.study_key, staged)
            if freed:  # the forwarder may have been here before, and withheld them
                requeue(connection, task.study_key, steps=("forward",), states=(TaskState.DONE,))

        return Done("pixels.held" if any(w.startswith("held:") for w in told) else "pixels.done", dict(told), commit)

    return work


def look_again(node: Node, tools: Tools) -> int:
    """After the detector was installed: studies withheld for want of it are due again; returns how many."""
    if tools.finder is None:
        return 0
    with node.database.read() as connection:
        query = (
            select(instance.c.study_key)
            .join(study, study.c.study_key == instance.c.study_key)
            .where(instance.c.pixel_work == NO_DETECTOR, instance.c.kept, study.c.state.in_(_OPEN))
            .distinct()
        )
        keys = [str(key) for key in connection.execute(query).scalars()]
    for key in keys:
        with node.database.write() as connection:
            requeue(connection, key, steps=("pixels",), states=(TaskState.DONE,))
            audit.append(connection, node.actor, "pixels.look-again", key)
    return len(keys)

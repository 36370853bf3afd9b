"""What a mode leaves of a result: a model in shadow says nothing, one in information changes no reading order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edge_node.domain.finding import ModelIdentity, TriageOutcome, TriageResult
from edge_node.domain.model import SPEAKING
from edge_node.domain.modes import Mode, lowest, may_write

ModelMode = Callable[[ModelIdentity], Mode]


@dataclass(frozen=True, slots=True)
class Modes:
    """The mode of the node, of each writer and of each model; the most cautious of them counts."""

    node: Mode
    writers: Mapping[str, Mode]
    model: ModelMode

    @classmethod
    def of(cls, node: str, writers: Mapping[str, str], models: Mapping[str, str]) -> Modes:
        """From the words of the configuration; whoever is not named there is bound by `node`, a model also by the stage
        that it had when it judged."""
        by_model = {name: Mode(mode) for name, mode in models.items()}
        return cls(
            Mode(node),
            {name: Mode(mode) for name, mode in writers.items()},
            lambda model: lowest(by_model.get(model.name, Mode.LIVE), _mode_of(model.stage)),
        )

    def of_writer(self, name: str) -> Mode:
        """The mode a writer runs in, whatever the model."""
        return lowest(self.node, self.writers.get(name, Mode.LIVE))

    def permitted(self, result: TriageResult, *, reorders: bool) -> TriageResult:
        """The findings of models that may speak through a writer of this kind; without any, nothing applies, or it was
        skipped if a model could not judge that should have: silence about it must not withdraw what it said before.

        The key image shows the deciding finding: it goes when that one goes.
        """
        kept = tuple(one for one in result.findings if may_write(self.model(one.model), reorders=reorders))
        if len(kept) == len(result.findings):
            return result
        if not kept:
            missing = result.unavailable
            outcome = TriageOutcome.SKIPPED if missing else TriageOutcome.NOT_APPLICABLE
            reason = "worklist.models-silent: no model may speak here"
            reason += ", and one that might have judged it could not" if missing else ""
            return TriageResult(outcome, reason, unavailable=missing)
        same = replace(result, findings=kept)
        return same if same.top == result.top else replace(same, key_image=None)


def _mode_of(stage: str) -> Mode:
    """What a stage of the model registry allows; a stage that lets nobody judge allows nothing."""
    return Mode(stage) if stage in SPEAKING else Mode.SHADOW

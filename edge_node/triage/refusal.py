"""What a model says of a study that it could not judge."""

from __future__ import annotations

from edge_node.domain.finding import Finding, Verdict
from edge_node.triage.model import LoadedModel
from edge_node.triage.prepare import CannotJudge


def refusal(
    model: LoadedModel, key: tuple[str, str, int], error: CannotJudge, notes: tuple[str, ...], seconds: float
) -> Finding:
    """`key` is series, object and frame that stand for what could not be judged."""
    point = model.card.point(model.variant, model.card.first)
    return Finding(
        verdict=Verdict.CANNOT_JUDGE,
        model=model.identity,
        provider=model.provider,
        code=model.card.code(model.card.first),
        probability=0.0,
        threshold=point.threshold,
        category=model.card.first.category,
        series_uid=key[0],
        key_sop_uid=key[1],
        key_frame=key[2],
        box=None,
        seconds=seconds,
        reason=str(error),
        quality=notes,
    )

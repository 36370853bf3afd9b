"""Whether a model on an accelerator decides as the CPU of the same package does: proven before it may speak.

Golden vectors say that one variant still answers as when it was made. This says more: that what really runs here,
provider and variant, gives the probabilities and decisions of the CPU. It is compared twice: with the same file on the
CPU (the device alone, also on noise that no patient looks like), and with the file that a site without an accelerator
would run (on golden inputs and small changes of them, by its probabilities: on noise two quantizations may well differ,
and each has its own threshold). Nothing is random and nothing depends on the clock: two starts show the same items.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_node.triage import score
from edge_node.triage.calibration import corrected
from edge_node.triage.card import Card
from edge_node.triage.card_tables import FindingTable, ToleranceTable, Variant
from edge_node.triage.runner import Arrays, OutOfTime

TIE: Final = 0.02  # as near to the threshold as this on both sides, either decision is right
MOST_GOLDEN: Final = 4
LARGE: Final = 1 << 20  # values of one item: beyond, the CPU takes seconds for each
_STRANGE: Final = 3  # items a kind
_NOISE: Final = 0.02

Run = Callable[[Arrays, float], Arrays]
Shares = NDArray[np.float64]
Change = Callable[[Shares], Shares]


@dataclass(frozen=True, slots=True)
class Apart:
    """How far two models were apart: `flips` of `decisions` (an item times a finding) differ by more than a tie,
    `worst` is the largest difference of a probability, NaN if one was no number."""

    items: int = 0
    decisions: int = 0
    flips: int = 0
    worst: float = 0.0

    def more(self, items: int, decisions: int, flips: int, worst: float) -> Apart:
        """With what further items showed."""
        return Apart(self.items + items, self.decisions + decisions, self.flips + flips, _larger(self.worst, worst))

    def breaches(self, allowed: ToleranceTable, against: str, *, decides: bool = True) -> list[str]:
        """What is not allowed, in words; empty if all is well. Flips count if it `decides` with the same threshold, and
        a single one proves nothing of so few items."""
        found = []
        if decides and self.flips > max(1.0, allowed.flips * self.decisions):
            found.append(
                f"{self.flips} of {self.decisions} decisions differ from {against}, allowed {allowed.flips:.1%}"
            )
        if not self.worst <= allowed.probability:
            found.append(
                f"probabilities differ from {against} by up to {self.worst:.3f}, allowed {allowed.probability:g}"
            )
        return found


@dataclass(frozen=True, slots=True)
class Agreement:
    """What ran where (provider, variant) beside the CPU: `device` is the same variant there, `reference` names the
    variant of the CPU and `variants` is how far that one was; `seconds` is what it took."""

    provider: str
    variant: str
    reference: str
    device: Apart
    variants: Apart
    seconds: float

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)

    def breaches(self, allowed: ToleranceTable) -> list[str]:
        """What the card does not allow, in words; empty if all is well."""
        found = self.device.breaches(allowed, f"{self.variant} on the CPU")
        if self.reference != self.variant:
            found += self.variants.breaches(allowed, f"{self.reference} on the CPU", decides=False)
        return found


class NoMeasure(Exception):
    """The CPU cannot be compared with; the text says why."""


def told(figures: Mapping[str, Any]) -> str:
    """`Agreement.plain` as half a sentence."""
    parts = [_apart(figures["variant"], figures["device"])]
    if figures["reference"] != figures["variant"]:
        parts.append(_apart(figures["reference"], figures["variants"]))
    return "agrees with the CPU: " + "; ".join(parts)


def _apart(variant: str, one: Mapping[str, Any]) -> str:
    flips = f"{one['flips']} of {one['decisions']} decisions differ from {variant}"
    return f"{flips}, probabilities by {one['worst']:.2g} at most"


def probes(card: Card, variant: Variant) -> Iterator[tuple[bool, Arrays]]:
    """Inputs of the card in small batches, each with whether it is near to what the model is made for: first the golden
    ones, then these mirrored, with a little noise, flatter, blurred, darker and brighter; then what no patient looks
    like: grey from black to white, noise of three grains. Of items that are `LARGE` fewer, one at a time."""
    golden, _ = card.golden(variant)
    large = max(array[0].size for array in golden.values()) > LARGE
    count = 1 if large else min(MOST_GOLDEN, len(next(iter(golden.values()))))
    few = {name: array[:count] for name, array in golden.items()}
    many = 1 if large else _STRANGE
    rng = np.random.default_rng(1)
    yield True, few
    near: list[Change] = [
        lambda x: x[..., ::-1],
        lambda x: np.clip(x + rng.normal(0, _NOISE, x.shape), 0, 1),
        lambda x: 0.05 + 0.9 * x,
        lambda x: (x + np.roll(x, 1, -1)) / 2,
        lambda x: x[..., ::-1, :] if x.ndim > 2 else x,
        *(lambda x, by=by: np.clip(by * x, 0, 1) for by in (0.8, 0.9, 0.95, 1.05, 1.1)),
        *(lambda x, by=by: np.clip(x + by, 0, 1) for by in (-0.05, -0.02, 0.02, 0.05)),
    ]
    strange: list[Change] = [
        *(
            lambda x, grain=grain: np.stack([_noise(x.shape[1:], grain, rng) for _ in range(many)])
            for grain in (16, 4, 1)
        ),
        lambda x: np.stack([np.full(x.shape[1:], level) for level in np.linspace(0, 1, many)]),
    ]
    for change in near[:3] if large else near:
        yield True, _changed(card, few, change)
    for change in strange[:2] if large else strange:
        yield False, _changed(card, few, change)


def agreement(
    card: Card, running: tuple[str, Variant, Run], same: Run, reference: tuple[Variant, Run], limit_s: float
) -> Agreement:
    """Show all the same probes. `running` is (provider, variant, run), `same` that variant on the CPU, `reference` the
    variant of the CPU.

    Raises `OutOfTime` when it takes longer than `limit_s`, `NoMeasure`, what `run` of the device raises, and
    `CannotJudge` for outputs of it that are no probabilities."""
    provider, variant, run = running
    other, run_other = reference
    began = time.monotonic()
    device, variants = Apart(), Apart()

    def left() -> float:
        seconds = began + limit_s - time.monotonic()
        if seconds <= 0:
            raise OutOfTime
        return seconds

    for near, inputs in probes(card, variant):
        items = len(next(iter(inputs.values())))
        said = probabilities(card, variant, run(inputs, left()))
        device = device.more(
            items, *_compared(card, (variant, said), (variant, _cpu(card, variant, same, inputs, left())))
        )
        if near and other != variant:
            expected = _cpu(card, other, run_other, inputs, left())
            variants = variants.more(items, *_compared(card, (variant, said), (other, expected)))
    return Agreement(provider, variant, other, device, variants, time.monotonic() - began)


def _cpu(card: Card, variant: Variant, run: Run, inputs: Arrays, left: float) -> dict[str, Shares]:
    try:
        return probabilities(card, variant, run(inputs, left))
    except OutOfTime:
        raise
    except Exception as error:  # whatever it is, the device has no part in it
        raise NoMeasure(f"the CPU fails ({type(error).__name__})") from error


def _larger(one: float, two: float) -> float:
    """NaN if one of them is: what is no number is no agreement."""
    return float(np.maximum(one, two))


def _compared(
    card: Card, one: tuple[Variant, dict[str, Shares]], two: tuple[Variant, dict[str, Shares]]
) -> tuple[int, int, float]:
    """Decisions, flips beyond a tie, and the largest difference."""
    flips, decisions, worst = 0, 0, 0.0
    for finding in card.file.findings:
        p, q = one[1][finding.short], two[1][finding.short]
        here, there = (card.point(variant, finding).threshold for variant in (one[0], two[0]))
        tie = np.maximum(np.abs(p - here), np.abs(q - there)) <= TIE
        flips += int((((p >= here) != (q >= there)) & ~tie).sum())
        decisions += len(p)
        worst = _larger(worst, float(np.abs(p - q).max()))
    return decisions, flips, worst


def probabilities(card: Card, variant: Variant, outputs: Arrays) -> dict[str, Shares]:
    """What each finding of the card would say of each item alone, by its short word: (n,) in 0..1."""
    return {
        finding.short: np.array(
            [
                corrected(score.probability(raw, point.slope, point.offset), point.isotonic)
                for raw in _logits(card, finding, outputs)
            ]
        )
        for finding in card.file.findings
        for point in (card.point(variant, finding),)
    }


def _logits(card: Card, finding: FindingTable, outputs: Arrays) -> list[float]:
    """The score of each item on the logit scale, as the node makes it of a study."""
    output = card.output(finding.output)
    raw = outputs[finding.output]
    if output.kind == "logit-map":
        maps = raw.astype(np.float32)[:, 0]
        # No cavity is known here: every cell counts, as a film's do.
        return [float(one) for one in score.slab_scores(maps, np.ones(maps.shape, np.bool_), least=1)]
    shares = score.activated(raw, output)[:, finding.index]
    return _odds(np.array([score.volume_score(one, output.top_voxels) for one in shares]))


def _odds(shares: NDArray[np.floating[Any]]) -> list[float]:
    clipped = np.clip(shares.astype(np.float64), 1e-6, 1 - 1e-6)
    return [float(one) for one in np.log(clipped / (1 - clipped))]


def _changed(card: Card, golden: Arrays, change: Change) -> Arrays:
    """Golden inputs with their pixels changed; numbers out of the header stay, repeated as often as there are items."""
    made: Arrays = {}
    for one in card.file.inputs:
        if one.attributes is None:
            changed = change(golden[one.name].astype(np.float64))
            made[one.name] = np.ascontiguousarray(changed).astype(one.dtype)
    count = len(next(iter(made.values()))) if made else len(next(iter(golden.values())))
    for one in card.file.inputs:
        if one.attributes is not None:
            made[one.name] = np.resize(golden[one.name], (count, *golden[one.name].shape[1:]))
    return made


def _noise(shape: tuple[int, ...], grain: int, rng: np.random.Generator) -> Shares:
    """Noise in 0..1 whose grains are so many pixels wide along the last two axes (last alone, if there is one)."""
    axes = range(max(0, len(shape) - 2), len(shape))
    coarse = tuple(-(-n // grain) if axis in axes else n for axis, n in enumerate(shape))
    made = rng.random(coarse)
    for axis in axes:
        made = np.repeat(made, grain, axis=axis)
    return made[tuple(slice(0, n) for n in shape)]

"""The table [triage] of the configuration: which models, whose, and on what they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edge_node.config.section import Section


class Triage(Section):
    """Models."""

    enabled: bool = Field(
        default=True, description="Run the models; when off, every study is skipped with that reason."
    )
    models_dir: Path | None = Field(
        default=None,
        description="Folder of model packages that are taken in at the start; default: the shipped models.",
    )
    packaged_stage: Literal["added", "shadow", "information", "live"] = Field(
        default="shadow",
        description="How far a model out of models_dir may speak that was never on this node; the audit names the"
        " configuration as who approved it. A new version of a known model waits for `edge-node model promote`.",
    )
    trusted_keys: list[str] = Field(
        default=[], description="ed25519 public keys (base64) of the makers whose model packages are admitted."
    )
    unsigned_models: bool = Field(
        default=False, description="Admit model packages without a signature; every result says UNSIGNED PACKAGE."
    )
    site: str = Field(default="", description="Name under which model cards may have other thresholds for this site.")
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={},
        description="Operating points of this site, instead of those of the card: NAME/FINDING to threshold. `edge-node"
        " model validate` proposes one from the site's prevalence; every result names the threshold it was judged by.",
    )
    drift_window: int = Field(
        default=100, ge=30, le=10000, description="Results of a model in one look at drift; looks share none."
    )
    drift_false_alarms: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="Probability that a look alarms though nothing changed: 0.01 with looks of 100 results is one false"
        " alarm in 10000 results.",
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        default="auto", description="auto: CUDA if a GPU really answers, else CPU."
    )
    require_gpu: bool = Field(default=False, description="Stop instead of falling back to the CPU.")
    threads: int = Field(default=0, ge=0, description="Inference threads; 0: let onnxruntime choose.")
    gpu_memory_mb: int = Field(default=0, ge=0, description="Device memory that each model may take; 0: no limit.")
    studies_at_once: int = Field(
        default=2,
        ge=1,
        le=16,
        description="Studies judged at once, and one more that was ordered STAT; at each model, and wherever the others"
        " can wait, the most urgent one goes first.",
    )
    ahead_mb: int = Field(
        default=384,
        ge=0,
        description="Memory for slices that are decoded while their study is still coming in; 0: decode when it is"
        " judged. What finds no room is decoded then.",
    )
    time_limit_s: float = Field(default=120, gt=0, description="A study that takes longer to judge is skipped.")

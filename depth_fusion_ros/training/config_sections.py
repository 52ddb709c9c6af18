"""Sections of a training configuration, each with its own rules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

RELATIVE_KINDS = ("google_dual_pixel", "dcdp")
"""Data without a known lens: inverse depth up to scale and shift, for the affine loss only."""


RELATIVE_STAGES = ("rgb", "prior")
"""Stages that see one image and no lens: nothing metric can be asked of them."""
LAST_STAGES = ("whole", "fusion")
STAGE_LOSSES: dict[str, tuple[str, ...]] = {
    "dual_pixel": ("metric", "affine"), "rgb": ("affine",), "whole": ("metric", "affine"),
    "volume": ("metric", "silog"), "prior": ("affine",), "fusion": ("metric", "silog")}
"""The kinds of loss that a stage can learn by, see `LossSection`."""
Cycles = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=16)]
"""Steps of each cycle of the learning rate, see `TrainingConfig`."""


class ConfigError(ValueError):
    """A training configuration that cannot be used; the text lists every wrong field."""


class StrictModel(BaseModel):
    """Fields that are not known are refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(StrictModel):
    """One source of training samples: rendered scenes or a folder of captures.

    Attributes:
        kind: "simulated" (see `SceneCacheConfig`), "simulated_sweep" (`SweepCacheConfig`), "folder"
            (docs/training_data.md), "google_dual_pixel" or "dcdp".
        weight: a step takes its whole batch from one source, drawn in proportion to this.
        width_px, height_px: size of the crops.
        scenes, aperture_samples, seed: of simulated data only. slices: of simulated sweeps.
        stand_in_prior_share: of simulated sweeps, the share of them whose monocular prior is one
            made from the truth, for the fusion to learn on (`stand_in_priors.py`).
        path: folder of captures, for the other kinds. held_out_share: share of its captures that
            is kept for the curve and never trained on. parallax_axis, swap_views: how the views
            are shifted ("folder" says it in its lens.yaml). min_confidence: pixels below have no
            truth (Google).
    """

    kind: Literal["simulated", "simulated_sweep", "folder", "google_dual_pixel",
                  "dcdp"] = "simulated"
    weight: Annotated[float, Field(gt=0)] = 1.0
    width_px: Annotated[int, Field(ge=64, multiple_of=32)] = 128
    height_px: Annotated[int, Field(ge=64, multiple_of=32)] = 96
    scenes: Annotated[int, Field(ge=16, multiple_of=16)] = 5120
    aperture_samples: Annotated[int, Field(ge=16, le=1024)] = 40
    slices: Annotated[int, Field(ge=4, le=15)] = 8
    stand_in_prior_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: int = 1
    path: str = ""
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    parallax_axis: Literal["x", "y"] = "y"
    swap_views: bool = False
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> Self:
        captures = {"path", "held_out_share"}
        views = {"parallax_axis", "swap_views"}
        rendered = {"scenes", "aperture_samples", "seed"}
        allowed = {"simulated": rendered, "simulated_sweep": rendered | {
                       "slices", "stand_in_prior_share"},
                   "folder": captures,
                   "google_dual_pixel": captures | views | {"min_confidence"},
                   "dcdp": captures | views}
        foreign = set().union(*allowed.values()) - allowed[self.kind]
        wrong = sorted(foreign & self.model_fields_set)
        # A dumped configuration names every field; what keeps its default says nothing.
        wrong = [n for n in wrong if getattr(self, n) != type(self).model_fields[n].default]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not for kind = {self.kind!r}, which has "
                             f"{sorted(allowed[self.kind])}; remove it or change the kind")
        if "path" in allowed[self.kind] and not self.path:
            raise ValueError(f"path is missing: kind = {self.kind!r} reads a folder of captures")
        return self


class LossSection(StrictModel):
    """What is minimised.

    Attributes:
        kind: "metric": disparity in px with heteroscedastic likelihood (`losses.LossWeights`);
            "affine": the paper's scale-and-shift-invariant inverse depth (`affine_losses`),
            which leaves sigma untrained; "silog": the attention-fusion paper's
            scale-invariant logarithm (`silog_losses`), for volume and fusion of a focus-sweep
            network only.
        likelihood, log_depth, relative, offset: weights of "metric". gradient: likewise.
            "silog" has `gradient` (the paper's 0.5) and, for sigma alone, `likelihood`.
        alignment: of "affine", how scale and shift are removed.
        affine_gradient: of "affine", the paper's 30.
    """

    kind: Literal["metric", "affine", "silog"] = "metric"
    likelihood: Annotated[float, Field(ge=0)] = 0.5
    log_depth: Annotated[float, Field(ge=0)] = 1.0
    relative: Annotated[float, Field(ge=0)] = 0.0
    gradient: Annotated[float, Field(ge=0)] = 0.5
    offset: Annotated[float, Field(ge=0)] = 0.05
    alignment: Literal["median", "least_squares"] = "median"
    affine_gradient: Annotated[float, Field(ge=0)] = 30.0


class ValidationSection(StrictModel):
    """Held-out samples for the curve; captures come from `data.held_out_share` instead."""

    scenes: Annotated[int, Field(ge=16, multiple_of=16)] = 128
    seed: int = 900001
    every_steps: Annotated[int, Field(ge=1)] = 250


class HardwareSection(StrictModel):
    """Where a run runs; only `precision` changes its result beyond rounding.

    Attributes:
        accelerator, devices, num_nodes, precision: as Lightning Fabric has them.
        prefetch: batches made ahead in a thread; the batches are the same with any number.
    """

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(ge=1)] = 1
    num_nodes: Annotated[int, Field(ge=1)] = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    prefetch: Annotated[int, Field(ge=0, le=16)] = 0

    @model_validator(mode="after")
    def _half_needs_gpu(self) -> Self:
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("precision = '16-mixed' with accelerator = 'cpu': CPUs have no "
                             "float16 training; use 'bf16-mixed' or '32-true'")
        return self


class StageSection(StrictModel):
    """One stage of a training (`stages.py`); what is None is inherited.

    "dual_pixel", "rgb" and "whole" are cross-modal transfer learning of a DiFuse-Net; "volume",
    "prior" and "fusion" the parts of a focus-sweep network.
    """

    name: Literal["dual_pixel", "rgb", "whole", "volume", "prior", "fusion"]
    steps: Annotated[int, Field(ge=1)]
    cycles: Cycles | None = None
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    data: DataSection | None = None
    more_data: tuple[DataSection, ...] | None = None
    loss: LossSection | None = None

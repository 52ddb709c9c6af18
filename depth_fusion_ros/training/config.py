"""Training configuration, validated with errors that name field, value and rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from depth_fusion_ros.networks.registry import configuration

RELATIVE_KINDS = ("google_dual_pixel", "dcdp")
"""Data without a known lens: inverse depth up to scale and shift, for the affine loss only."""


class ConfigError(ValueError):
    """A training configuration that cannot be used; the text lists every wrong field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Strict):
    """One source of training samples: rendered scenes or a folder of captures.

    Attributes:
        kind: "simulated" (see `SceneCacheConfig`), "folder" (docs/training_data.md),
            "google_dual_pixel" or "dcdp".
        weight: a step takes its whole batch from one source, drawn in proportion to this.
        width_px, height_px: size of the crops.
        scenes, aperture_samples, seed: of simulated data only.
        path: folder of captures, for the other kinds. held_out_share: share of its captures that
            is kept for the curve and never trained on. parallax_axis, swap_views: how the views
            are shifted ("folder" says it in its lens.yaml). min_confidence: pixels below have no
            truth (Google).
    """

    kind: Literal["simulated", "folder", "google_dual_pixel", "dcdp"] = "simulated"
    weight: Annotated[float, Field(gt=0)] = 1.0
    width_px: Annotated[int, Field(ge=64, multiple_of=32)] = 128
    height_px: Annotated[int, Field(ge=64, multiple_of=32)] = 96
    scenes: Annotated[int, Field(ge=16, multiple_of=16)] = 5120
    aperture_samples: Annotated[int, Field(ge=16, le=1024)] = 40
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
        allowed = {"simulated": {"scenes", "aperture_samples", "seed"}, "folder": captures,
                   "google_dual_pixel": captures | views | {"min_confidence"},
                   "dcdp": captures | views}
        foreign = set().union(*allowed.values()) - allowed[self.kind]
        wrong = sorted(foreign & self.model_fields_set)
        # A dumped configuration names every field; what keeps its default says nothing.
        wrong = [n for n in wrong if getattr(self, n) != type(self).model_fields[n].default]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not for kind = {self.kind!r}, which has "
                             f"{sorted(allowed[self.kind])}; remove it or change the kind")
        if self.kind != "simulated" and not self.path:
            raise ValueError(f"path is missing: kind = {self.kind!r} reads a folder of captures")
        return self


class LossSection(_Strict):
    """What is minimised.

    Attributes:
        kind: "metric": disparity in px with heteroscedastic likelihood (`losses.LossWeights`);
            "affine": the paper's scale-and-shift-invariant inverse depth (`affine_losses`),
            which leaves sigma untrained.
        likelihood, log_depth, offset: weights of "metric". gradient: likewise.
        alignment: of "affine", how scale and shift are removed.
        affine_gradient: of "affine", the paper's 30.
    """

    kind: Literal["metric", "affine"] = "metric"
    likelihood: Annotated[float, Field(ge=0)] = 0.5
    log_depth: Annotated[float, Field(ge=0)] = 1.0
    gradient: Annotated[float, Field(ge=0)] = 0.5
    offset: Annotated[float, Field(ge=0)] = 0.05
    alignment: Literal["median", "least_squares"] = "median"
    affine_gradient: Annotated[float, Field(ge=0)] = 30.0


class ValidationSection(_Strict):
    """Held-out samples for the curve; captures come from `data.held_out_share` instead."""

    scenes: Annotated[int, Field(ge=16, multiple_of=16)] = 128
    seed: int = 900001
    every_steps: Annotated[int, Field(ge=1)] = 250


class HardwareSection(_Strict):
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


class StageSection(_Strict):
    """One stage of cross-modal transfer learning (`stages.py`); what is None is inherited."""

    name: Literal["dual_pixel", "rgb", "whole"]
    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    data: DataSection | None = None
    more_data: tuple[DataSection, ...] | None = None
    loss: LossSection | None = None


class TrainingConfig(_Strict):
    """Everything that decides the result of a training run, and where it runs.

    Attributes:
        network: a base and its switches, see `networks.registry`.
        data: the first source, on whose held-out samples the curve is measured; more_data:
            further ones.
        batch: samples of one step over all processes, drawn in `parts` equal parts, each with
            its own batch normalisation; gradients are averaged over them. 0 = one part for each
            process. A run repeats on another number of processes if `parts` is the same.
        stages: of cross-modal transfer learning; () = train the whole network at once.
    """

    network: str = "difuse_net_s"
    seed: int = 1
    data: DataSection = DataSection()
    more_data: tuple[DataSection, ...] = ()
    steps: Annotated[int, Field(ge=1)] = 5000
    batch: Annotated[int, Field(ge=1, le=1024)] = 16
    parts: Annotated[int, Field(ge=0, le=1024)] = 0
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 1.5e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 150
    decay_share: Annotated[float, Field(ge=0, le=1)] = 0.35
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    unknown_lens_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    loss: LossSection = LossSection()
    validation: ValidationSection = ValidationSection()
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 100
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    hardware: HardwareSection = HardwareSection()
    stages: tuple[StageSection, ...] = ()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        parts = self.parts or self.hardware.devices * self.hardware.num_nodes
        processes = self.hardware.devices * self.hardware.num_nodes
        if self.batch % parts or parts % processes:
            raise ValueError(
                f"batch = {self.batch} in {parts} parts on {processes} processes: batch must be a "
                "multiple of parts, and parts a multiple of devices x num_nodes")
        if not self.stages:  # what a stage inherits is checked with the stage
            for source in (self.data, *self.more_data):
                if source.kind in RELATIVE_KINDS and self.loss.kind == "metric":
                    raise ValueError(
                        f"data kind = {source.kind!r} with loss kind = 'metric': its lens is not "
                        "known, so there is no disparity in px; use loss: {kind: affine}")
        names = [stage.name for stage in self.stages]
        if names and (names[-1] != "whole" or len(set(names)) != len(names)):
            raise ValueError(f"stages = {names}: each name once, and 'whole' comes last")
        for stage in self.stages:
            stage_config(self, stage)
        return self


def stage_config(config: TrainingConfig, stage: StageSection) -> TrainingConfig:
    """The configuration of one stage: `config` with what the stage sets, and no stages.

    The RGB stage sees no parallax, so nothing metric can be asked of it: unless it sets a loss,
    its loss is the affine one.

    Raises:
        ValueError: the stage does not fit; the text names it.
    """
    values = {**config.model_dump(), **stage.model_dump(exclude_none=True), "stages": ()}
    del values["name"]
    if stage.name == "rgb" and stage.loss is None:
        values["loss"]["kind"] = "affine"
    try:
        merged = TrainingConfig(**values)
    except ValidationError as error:
        raise ValueError(f"stage {stage.name!r}: {_sentences(error).strip()}") from error
    if stage.name == "rgb" and merged.loss.kind != "affine":
        raise ValueError("stage 'rgb': loss kind = 'metric': RGB alone shows no disparity; "
                         "use loss: {kind: affine} there")
    return merged


def check_network(config: TrainingConfig) -> None:
    """See that the network exists and fits the crops and the stages.

    Raises:
        ConfigError: it does not; the text names what and the remedy.
    """
    try:
        family, architecture = configuration(config.network)
    except ValueError as error:
        raise ConfigError(f"  network = {config.network!r}: {error}") from error
    if config.stages and family != "difuse_net":
        raise ConfigError(f"  stages with network = {config.network!r}: only DiFuse-Nets have the "
                          "two encoders to transfer; remove stages")
    for data in (config.data, *config.more_data):
        if data.width_px % architecture.stride or data.height_px % architecture.stride:
            raise ConfigError(
                f"  data crops of {data.width_px}x{data.height_px} px: {config.network} needs "
                f"multiples of {architecture.stride}; change width_px and height_px")


def load_config(path: Path) -> TrainingConfig:
    """Read and validate a YAML training configuration.

    Raises:
        ConfigError: the file is missing, is not YAML, or a field is wrong; every wrong field is
            named with its value and the rule.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"training configuration {path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"training configuration {path}: not valid YAML ({error})") from error
    try:
        config = TrainingConfig(**(values or {}))
        check_network(config)
        for stage in config.stages:
            check_network(stage_config(config, stage))
    except (ValidationError, TypeError, ConfigError) as error:
        raise ConfigError(f"training configuration {path}:\n{_sentences(error)}") from error
    return config


def with_hardware(config: TrainingConfig, values: dict[str, Any]) -> TrainingConfig:
    """The configuration on other hardware; values that are None stay as they are.

    Raises:
        ConfigError: a value is refused; the text names it and the rule.
    """
    given = {k: v for k, v in values.items() if v is not None}
    try:
        return TrainingConfig(**{**config.model_dump(),
                                 "hardware": {**config.hardware.model_dump(), **given}})
    except ValidationError as error:
        raise ConfigError(f"hardware:\n{_sentences(error)}") from error


def save_config(config: TrainingConfig, path: Path) -> None:
    """Write a configuration with every field, so that `load_config` gives it back."""
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False))


def _sentences(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error) if isinstance(error, ConfigError) else f"  {error}"
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "value_error":  # our own sentence names the value
            lines.append(f"  {place + ': ' if place else ''}{item['msg']}")
        else:
            lines.append(f"  {place} = {item['input']!r}: {item['msg']}")
    return "\n".join(lines)

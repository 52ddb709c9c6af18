"""Training configuration, validated with errors that name field, value and rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from depth_fusion_ros.networks.registry import configuration
from depth_fusion_ros.networks.sweep_depth import PARTS
from depth_fusion_ros.training.config_sections import (
    LAST_STAGES,
    RELATIVE_KINDS,
    RELATIVE_STAGES,
    STAGE_LOSSES,
    ConfigError,
    Cycles,
    DataSection,
    HardwareSection,
    LossSection,
    StageSection,
    StrictModel,
    ValidationSection,
)

__all__ = ["ConfigError", "DataSection", "HardwareSection", "LossSection", "StageSection",
           "TrainingConfig", "ValidationSection", "check_network", "check_whole", "load_config",
           "save_config", "stage_config", "with_hardware"]

class TrainingConfig(StrictModel):
    """Everything that decides the result of a training run, and where it runs.

    Attributes:
        network: a base and its switches, see `networks.registry`.
        data: the first source, on whose held-out samples the curve is measured; more_data:
            further ones.
        batch: samples of one step over all processes, drawn in `parts` equal parts, each with
            its own batch normalisation; gradients are averaged over them. 0 = one part for each
            process. A run repeats on another number of processes if `parts` is the same.
        cycles: warm restarts of the learning rate (Loshchilov and Hutter, ICLR 2017): the steps of
            each, `steps` in sum; () = one. Each has its own warm-up and decay and half the peak of
            the one before. A finished run of n steps is the first part of one with (n, ...).
        stages: of cross-modal transfer learning, or parts of a focus-sweep network; () = train
            the whole network at once.
        start_from: weights (safetensors) that a focus-sweep network begins from, in the parts that
            it has in common with them; "" = fresh.
    """

    network: str = "difuse_net_s"
    seed: int = 1
    data: DataSection = DataSection()
    more_data: tuple[DataSection, ...] = ()
    steps: Annotated[int, Field(ge=1)] = 5000
    cycles: Cycles = ()
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
    start_from: str = ""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.cycles and sum(self.cycles) != self.steps:
            raise ValueError(f"steps = {self.steps} in cycles = {list(self.cycles)}, "
                             f"{sum(self.cycles)} in sum: must be equal; change one of them")
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
        if names and (names[-1] not in LAST_STAGES or len(set(names)) != len(names)):
            raise ValueError(f"stages = {names}: each name once, and 'whole' comes last ("
                             "'fusion' of a focus-sweep network)")
        for stage in self.stages:
            stage_config(self, stage)
        return self


def stage_config(config: TrainingConfig, stage: StageSection) -> TrainingConfig:
    """The configuration of one stage: `config` with what the stage sets, and no stages.

    The RGB stage sees no parallax and the prior one image, so nothing metric can be asked of them:
    unless they set a loss, theirs is the affine one.

    Raises:
        ValueError: the stage does not fit; the text names it.
    """
    values = {**config.model_dump(), **stage.model_dump(exclude_none=True), "stages": ()}
    del values["name"]
    if stage.name in RELATIVE_STAGES and stage.loss is None:
        values["loss"]["kind"] = "affine"
    try:
        merged = TrainingConfig(**values)
    except ValidationError as error:
        raise ValueError(f"stage {stage.name!r}: {_sentences(error).strip()}") from error
    kinds = STAGE_LOSSES[stage.name]
    if merged.loss.kind not in kinds:
        why = ("RGB alone shows no disparity and no metres; " if kinds == ("affine",) else "")
        raise ValueError(f"stage {stage.name!r}: loss kind = {merged.loss.kind!r}: {why}"
                         f"use loss: {{kind: {' or '.join(kinds)}}} there")
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
    parts = {"sweep_depth": PARTS, "difuse_net": ("dual_pixel", "rgb", "whole")}.get(family, ())
    foreign = [stage.name for stage in config.stages if stage.name not in parts]
    if foreign:
        raise ConfigError(f"  stages {foreign} with network = {config.network!r}: it has "
                          f"{list(parts) or 'none'}; remove stages that are not its own")
    sweeps = {data.kind == "simulated_sweep" for data in (config.data, *config.more_data)}
    if sweeps != {family == "sweep_depth"}:
        raise ConfigError(f"  data kind = {config.data.kind!r} with network = {config.network!r}: "
                          "a focus-sweep network learns from 'simulated_sweep', every other from "
                          "other data; change one of them")
    if config.loss.kind == "silog" and family != "sweep_depth":
        raise ConfigError(f"  loss kind = 'silog' with network = {config.network!r}: only volume "
                          "and fusion of a focus-sweep network learn by it; use metric or affine")
    for data in (config.data, *config.more_data):
        if data.width_px % architecture.stride or data.height_px % architecture.stride:
            raise ConfigError(
                f"  data crops of {data.width_px}x{data.height_px} px: {config.network} needs "
                f"multiples of {architecture.stride}; change width_px and height_px")


def check_whole(config: TrainingConfig) -> None:
    """See that a configuration can be trained as a whole: its network, every stage, what it needs.

    Raises:
        ConfigError: it cannot; the text names what and the remedy.
    """
    check_network(config)
    for stage in config.stages:
        check_network(stage_config(config, stage))
    family, _ = configuration(config.network)
    if family == "sweep_depth" and not config.stages:
        raise ConfigError(f"  stages are missing: {config.network!r} is trained part by part; list "
                          f"some of {list(PARTS)}, 'fusion' last")
    if config.start_from and family != "sweep_depth":
        raise ConfigError(f"  start_from = {config.start_from!r} with network = "
                          f"{config.network!r}: only focus-sweep networks begin from weights; "
                          "remove it")
    if config.start_from and not Path(config.start_from).is_file():
        raise ConfigError(f"  start_from = {config.start_from!r}: no such file; give the "
                          "safetensors of an earlier run")


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
        check_whole(config)
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

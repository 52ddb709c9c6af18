"""Training configuration, validated with errors that name field, value and rule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from depth_fusion_ros.networks.difuse_net import CONFIGS


class ConfigError(ValueError):
    """A training configuration that cannot be used; the text lists every wrong field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Strict):
    """Rendered training scenes, see `SceneCacheConfig`."""

    scenes: Annotated[int, Field(ge=16, multiple_of=16)] = 5120
    width_px: Annotated[int, Field(ge=64, multiple_of=32)] = 128
    height_px: Annotated[int, Field(ge=64, multiple_of=32)] = 96
    aperture_samples: Annotated[int, Field(ge=16, le=1024)] = 40
    seed: int = 1


class LossSection(_Strict):
    """Weights of `losses.LossWeights`."""

    likelihood: Annotated[float, Field(ge=0)] = 0.5
    log_depth: Annotated[float, Field(ge=0)] = 1.0
    gradient: Annotated[float, Field(ge=0)] = 0.5
    offset: Annotated[float, Field(ge=0)] = 0.05


class ValidationSection(_Strict):
    """Held-out simulated scenes for the curve."""

    scenes: Annotated[int, Field(ge=16, multiple_of=16)] = 128
    seed: int = 900001
    every_steps: Annotated[int, Field(ge=1)] = 250


class TrainingConfig(_Strict):
    """Everything that decides the result of a training run."""

    network: str = "difuse_net_s"
    seed: int = 1
    data: DataSection = DataSection()
    steps: Annotated[int, Field(ge=1)] = 5000
    batch: Annotated[int, Field(ge=1, le=1024)] = 16
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
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"training configuration {path}:\n{_sentences(error)}") from error
    if config.network not in CONFIGS:
        raise ConfigError(f"training configuration {path}: network = {config.network!r}: "
                          f"use one of {sorted(CONFIGS)}")
    return config


def _sentences(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"  {error}"
    return "\n".join(
        f"  {'.'.join(str(part) for part in item['loc'])} = {item['input']!r}: {item['msg']}"
        for item in error.errors())

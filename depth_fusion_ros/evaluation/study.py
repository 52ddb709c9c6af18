"""A study: several networks trained alike with several seeds, scored alike, compared in a table.

    study = load_study(Path("config/study/paper_order.yaml"))
    for run in runs(study): ...              # train what is not trained yet, then score it
    rows = compare(study, scores)            # means and spread over seeds, ratios to the reference

Training is `training/stages.py`, scoring `benchmark.py`; here is only what makes them comparable.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from depth_fusion_ros.training.config import ConfigError, TrainingConfig, check_whole

RANKED = "one_minus_spearman"
COLUMNS = (RANKED, "aiwe_1", "aiwe_2", "abs_rel", "delta_1")
"""Metrics of a study's table; ratios are taken of the first."""


class StudyEntry(BaseModel):
    """One row of the table: a network, and what its training changes of the common one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    network: str
    training: dict[str, Any] = {}


class Study(BaseModel):
    """What is compared.

    Attributes:
        reference: label of the entry that ratios are taken of.
        seeds: of weights, samples and sensor noise; scenes are the same for all.
        training: fields of `TrainingConfig` of every run, without network and seed.
        entries: rows, each with its own label.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    training: dict[str, Any]
    entries: Annotated[tuple[StudyEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        labels = [entry.label for entry in self.entries]
        if len(set(labels)) != len(labels):
            raise ValueError(f"entries {labels}: each label once")
        if self.reference not in labels:
            raise ValueError(f"reference = {self.reference!r}: use one of {labels}")
        return self


@dataclass(frozen=True)
class StudyRun:
    """One training of a study: `config` in `folder`, relative to the study's."""

    label: str
    seed: int
    folder: Path
    config: TrainingConfig


def load_study(path: Path) -> Study:
    """Read and validate a study, with every training configuration in it.

    Raises:
        ConfigError: it cannot be read, or a field is wrong; the text names it.
    """
    try:
        study = Study(**(yaml.safe_load(path.read_text()) or {}))
    except (OSError, yaml.YAMLError, ValidationError, TypeError) as error:
        raise ConfigError(f"study {path}: {error}") from error
    for run in runs(study):
        try:
            check_whole(run.config)
        except ConfigError as error:
            raise ConfigError(f"study {path}: {run.label!r}: {error}") from error
    return study


def runs(study: Study) -> Iterator[StudyRun]:
    """Every run of a study, all entries with the first seed first.

    Raises:
        ConfigError: an entry's training is refused.
    """
    for seed in study.seeds:
        for entry in study.entries:
            values = {**study.training, **entry.training, "network": entry.network, "seed": seed}
            try:
                config = TrainingConfig(**values)
            except (ValidationError, TypeError) as error:
                raise ConfigError(f"study entry {entry.label!r}: {error}") from error
            yield StudyRun(entry.label, seed, Path(_folder_name(entry.label)) / f"seed_{seed}",
                           config)


def _folder_name(label: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in label.lower()).split())


def finished(run: StudyRun, root: Path) -> bool:
    """Whether the run in `root` has been trained to its last step with this configuration."""
    facts_path = root / run.folder / "run.json"
    if not facts_path.is_file():
        return False
    facts = json.loads(facts_path.read_text())
    steps = run.config.stages[-1].steps if run.config.stages else run.config.steps
    return bool(facts["steps_done"] == steps and facts["network"] == run.config.network)


def compare(study: Study, scores: Mapping[str, Mapping[int, Mapping[str, float]]]
            ) -> dict[str, dict[str, Any]]:
    """Rows of the table.

    Args:
        scores: label → seed → mean metrics over the images of a set; what is not trained yet is
            absent.

    Returns:
        label → "seeds", "mean" and "spread" (largest minus smallest over the seeds) of `COLUMNS`,
        and "ratio", the reference's `RANKED` over this entry's: mean of the ratios of the seeds
        that both have, with "ratios" one by one. Below 1 the reference is better.
    """
    rows: dict[str, dict[str, Any]] = {}
    reference = scores.get(study.reference, {})
    for entry in study.entries:
        by_seed = scores.get(entry.label, {})
        if not by_seed:
            continue
        columns = {c: [by_seed[s][c] for s in sorted(by_seed)] for c in COLUMNS}
        ratios = {s: reference[s][RANKED] / by_seed[s][RANKED]
                  for s in sorted(by_seed) if s in reference}
        rows[entry.label] = {
            "network": entry.network, "seeds": sorted(by_seed),
            "mean": {c: statistics.fmean(v) for c, v in columns.items()},
            "spread": {c: max(v) - min(v) for c, v in columns.items()},
            "ratios": ratios, "ratio": statistics.fmean(ratios.values()) if ratios else None}
    return rows

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from depth_fusion_ros.networks.registry import configuration
from depth_fusion_ros.training.config import ConfigError, TrainingConfig, check_whole
from depth_fusion_ros.training.stages import weights_of

SWEEP_FAMILY = "sweep_depth"
COLUMNS = ("one_minus_spearman", "aiwe_1", "aiwe_2", "abs_rel", "delta_1")
"""Metrics of a study's table; ratios are taken of `Study.ranked`."""


class StudyEntry(BaseModel):
    """One row of the table: a network, and what its training changes of the common one.

    Attributes:
        parts_of: of focus-sweep networks, label of an entry above whose volume and prior, of the
            same seed, this one has too: only its fusion is trained. "" = it trains its own.
        shown: "volume" or "prior": that part of `parts_of` by itself, for which nothing is
            trained; "" = the whole network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    network: str
    training: dict[str, Any] = {}
    parts_of: str = ""
    shown: Literal["", "volume", "prior"] = ""


class Study(BaseModel):
    """What is compared.

    Attributes:
        reference: label of the entry that ratios are taken of; ranked: the metric they are of.
        seeds: of weights, samples and sensor noise; scenes are the same for all.
        training: fields of `TrainingConfig` of every run, without network and seed.
        entries: rows, each with its own label.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str
    ranked: Literal["one_minus_spearman", "aiwe_1", "aiwe_2", "abs_rel"] = "one_minus_spearman"
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
        own = {e.label: position for position, e in enumerate(self.entries) if not e.parts_of}
        for position, entry in enumerate(self.entries):
            if entry.parts_of and own.get(entry.parts_of, position) >= position:
                raise ValueError(f"entry {entry.label!r}: parts_of = {entry.parts_of!r}: name an "
                                 "entry above it that trains its own parts")
            if entry.shown and (not entry.parts_of or entry.training):
                raise ValueError(f"entry {entry.label!r}: shown = {entry.shown!r}: needs parts_of, "
                                 "and has no training of its own")
        return self

    @property
    def of_sweeps(self) -> bool:
        """Whether its networks read focus sweeps."""
        return configuration(self.entries[0].network)[0] == SWEEP_FAMILY


@dataclass(frozen=True)
class StudyRun:
    """One row's training: `config` in `folder`, relative to the study's.

    Attributes:
        start_from: weights that it begins from, relative as well; None = none.
        shown: part of the network that is scored by itself; "" = all.
        stages: folders, relative as well, of all the stages that went into what is scored.
    """

    label: str
    seed: int
    folder: Path
    config: TrainingConfig
    start_from: Path | None = None
    shown: str = ""
    stages: tuple[Path, ...] = ()

    def config_in(self, root: Path) -> TrainingConfig:
        """The configuration with the weights it begins from, where the study lies in `root`."""
        if self.start_from is None:
            return self.config
        return self.config.model_copy(update={"start_from": str(root / self.start_from)})

    @property
    def key(self) -> str:
        """A name that no other row and seed has."""
        return f"{self.label}, seed {self.seed}"


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
    sweeps = [e.label for e in study.entries if configuration(e.network)[0] == SWEEP_FAMILY]
    if sweeps and len(sweeps) < len(study.entries):
        raise ConfigError(f"study {path}: entries {sweeps} read focus sweeps and the others dual "
                          "pixels: nothing can be scored on both; make two studies")
    return study


def runs(study: Study) -> Iterator[StudyRun]:
    """Every run of a study, all entries with the first seed first.

    Raises:
        ConfigError: an entry's training is refused.
    """
    for seed in study.seeds:
        own: dict[str, StudyRun] = {}
        for entry in study.entries:
            parts = own.get(entry.parts_of)
            if parts is not None and entry.shown:
                yield replace(parts, label=entry.label, shown=entry.shown,
                              stages=(parts.folder / entry.shown,))
                continue
            values = {**study.training, **entry.training, "network": entry.network, "seed": seed}
            if parts is not None:
                values["stages"] = [stage for stage in values.get("stages", ())
                                    if stage["name"] == "fusion"]
            try:
                config = TrainingConfig(**values)
            except (ValidationError, TypeError, KeyError) as error:
                raise ConfigError(f"study entry {entry.label!r}: {error}") from error
            folder = Path(_folder_name(entry.label)) / f"seed_{seed}"
            run = StudyRun(entry.label, seed, folder, config, stages=(
                *(folder / stage.name for stage in config.stages[:-1]), folder))
            if parts is not None:
                run = replace(run, start_from=_parts_weights(entry, parts),
                              stages=(*parts.stages[:-1], folder))
            own[entry.label] = run
            yield run


def _parts_weights(entry: StudyEntry, parts: StudyRun) -> Path:
    """Weights of volume and prior that an entry's fusion begins from.

    Raises:
        ConfigError: the run has no stages that train them.
    """
    names = [stage.name for stage in parts.config.stages]
    if names != ["volume", "prior", "fusion"]:
        raise ConfigError(f"study entry {entry.label!r}: parts_of = {entry.parts_of!r}, which has "
                          f"the stages {names}: volume, prior and fusion are needed")
    return weights_of(parts.config.stages[-2], parts.folder)


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


def minutes_of(run: StudyRun, root: Path) -> float:
    """Minutes of training, contended or not, that went into what is scored."""
    minutes = [float(json.loads((root / folder / "run.json").read_text())["minutes"])
               for folder in run.stages]
    return round(sum(minutes), 1)


def compare(study: Study, scores: Mapping[str, Mapping[int, Mapping[str, float]]]
            ) -> dict[str, dict[str, Any]]:
    """Rows of the table.

    Args:
        scores: label → seed → mean metrics over the images of a set; what is not trained yet is
            absent.

    Returns:
        label → "seeds", "mean" and "spread" (largest minus smallest over the seeds) of `COLUMNS`,
        and "ratio", the reference's `study.ranked` over this entry's: mean of the ratios of the
        seeds that both have, with "ratios" one by one. Below 1 the reference is better.
    """
    rows: dict[str, dict[str, Any]] = {}
    reference = scores.get(study.reference, {})
    for entry in study.entries:
        by_seed = scores.get(entry.label, {})
        if not by_seed:
            continue
        columns = {c: [by_seed[s][c] for s in sorted(by_seed)] for c in COLUMNS}
        ratios = {s: reference[s][study.ranked] / by_seed[s][study.ranked]
                  for s in sorted(by_seed) if s in reference}
        rows[entry.label] = {
            "network": entry.network, "seeds": sorted(by_seed),
            "mean": {c: statistics.fmean(v) for c, v in columns.items()},
            "spread": {c: max(v) - min(v) for c, v in columns.items()},
            "ratios": ratios, "ratio": statistics.fmean(ratios.values()) if ratios else None}
    return rows

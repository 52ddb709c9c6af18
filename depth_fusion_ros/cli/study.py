"""`depth-fusion study`: train several networks alike, score them alike, compare."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.table import Table

from depth_fusion_ros.cli.console import (
    EXIT_UNUSABLE,
    console,
    fail,
    progress_bars,
    without_nan,
)

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.benchmark import ImageScore
    from depth_fusion_ros.evaluation.study import Study, StudyRun

_SEED = 0
_HEADINGS = {"one_minus_spearman": "1−|ρs|", "aiwe_1": "AIWE(1)", "aiwe_2": "AIWE(2)",
             "abs_rel": "AbsRel", "delta_1": "δ<1.25"}


_RAYTRACED_SWEEPS = ((10, "clean"), (5, "clean"), (10, "indoor"), (5, "indoor"))
_Scored: TypeAlias = "tuple[str, str, dict[str, list[ImageScore]]]"
"""Name of a set, its title, and the scores of every method on it."""


@dataclass(frozen=True)
class _Places:
    """Where what is scored on lies: preset and folder of the simulated set, folder of ray-traced
    scenes if any, and of rendered training scenes."""

    preset: str
    raytraced: Path | None
    cache: Path
    evaluation_cache: Path


def study_command(
    config: Annotated[Path, typer.Option(help="Study (YAML): networks, seeds, common training.")],
    out: Annotated[Path | None, typer.Option(
        help="Folder of the study. Default: runs/study/<its name>.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for rendered training scenes.")] = Path(
        "runs/cache"),
    preset: Annotated[str, typer.Option(help="Simulated evaluation set.")] = "eval",
    raytraced: Annotated[Path | None, typer.Option(
        help="Folder of ray-traced scenes (scene_*.npz).")] = None,
    evaluation_cache: Annotated[Path, typer.Option(
        help="Folder for the rendered evaluation set.")] = Path("runs/eval"),
    only: Annotated[str, typer.Option(
        help="Labels to train now, separated by semicolons; all that is trained is scored.")] = "",
) -> None:
    """Train what is missing, score what is trained, and print the comparison; resumable."""
    from depth_fusion_ros.evaluation.study import finished, load_study, runs
    from depth_fusion_ros.simulation.evaluation_scenes import PRESETS
    from depth_fusion_ros.training.config import ConfigError

    if preset not in PRESETS:
        fail(f"--preset {preset}: use one of {', '.join(PRESETS)}", EXIT_UNUSABLE)
    if raytraced is not None and not list(raytraced.glob("scene_*.npz")):
        fail(f"--raytraced {raytraced}: holds no scene_*.npz; name the ray-traced folder",
             EXIT_UNUSABLE)
    try:
        study = load_study(config)
    except ConfigError as error:
        fail(str(error), EXIT_UNUSABLE)
    wanted = {label.strip() for label in only.split(";")} - {""}
    unknown = wanted - {entry.label for entry in study.entries}
    if unknown:
        fail(f"--only {'; '.join(sorted(unknown))}: use labels of the study: "
             + "; ".join(entry.label for entry in study.entries), EXIT_UNUSABLE)
    root = out or Path("runs/study") / config.stem
    started = time.perf_counter()
    for run in runs(study):
        if (not wanted or run.label in wanted) and not finished(run, root):
            console.print(f"training {run.label!r}, seed {run.seed}", soft_wrap=True)
            _train(run, root, cache)
    _compare(study, root, _Places(preset, raytraced, cache, evaluation_cache), {
        "config": config, "preset": "" if study.of_sweeps else preset, "raytraced": raytraced},
        started)


def _train(run: StudyRun, root: Path, cache: Path) -> None:
    from depth_fusion_ros.training import trainer
    from depth_fusion_ros.training.parallel import start_processes
    from depth_fusion_ros.training.stages import prepare_folder, train

    folder, config = root / run.folder, run.config_in(root)
    fabric = start_processes(config.hardware)
    prepare_folder(config, folder, fabric, restart=False)
    with progress_bars() as bars:
        rendering = bars.add_task("rendering scenes", total=None, note="")
        training = bars.add_task(run.label, total=None, note="")
        train(config, folder, cache, fabric, progress=trainer.Progress(
            lambda done, total, text: bars.update(rendering, completed=done, total=total),
            lambda done, total, text: bars.update(
                training, completed=done, total=total, note=text)))


def _compare(study: Study, root: Path, places: _Places, options: dict[str, Any], started: float
             ) -> None:
    from depth_fusion_ros.evaluation.benchmark import summary
    from depth_fusion_ros.evaluation.run_record import run_record
    from depth_fusion_ros.evaluation.study import COLUMNS, compare, finished, minutes_of, runs

    done = [run for run in runs(study) if finished(run, root)]
    opened = [_open(run, root) for run in done]
    minutes: dict[str, list[float]] = {}
    for run in done:
        minutes.setdefault(run.label, []).append(minutes_of(run, root))
    parameters = {run.label: method.parameters for run, method in zip(done, opened, strict=True)}
    results: dict[str, Any] = {"study": {}}
    scored_sets = _score_sweeps if study.of_sweeps else _score_views
    for kind, title, scored in scored_sets(opened, places, done):
        scores: dict[str, dict[int, dict[str, float]]] = {}
        for run in done:
            scores.setdefault(run.label, {})[run.seed] = {
                c: round(v, 6) for c, v in summary(scored[run.key]).items() if c in COLUMNS}
        rows = compare(study, scores)
        for label, row in rows.items():
            row |= {"parameters": parameters[label], "minutes": minutes[label]}
        results["study"][kind] = rows
        console.print(_table(title, rows))
    results |= {"reference": study.reference, "ranked": study.ranked}
    results["record"] = run_record("depth-fusion study", options, seeds={"sensor noise": _SEED},
                                   wall_time_s=time.perf_counter() - started)
    path = root / "study.json"
    path.write_text(json.dumps(without_nan(results), indent=1, ensure_ascii=False) + "\n")
    console.print(f"written: {path}")


def _open(run: StudyRun, root: Path) -> Any:
    """The row's method, named by its key."""
    from depth_fusion_ros.evaluation.methods import open_method
    from depth_fusion_ros.evaluation.study import SWEEP_FAMILY
    from depth_fusion_ros.evaluation.sweep_benchmark import open_sweep_method
    from depth_fusion_ros.networks.registry import configuration

    folder = str(root / run.folder)
    method: Any
    if configuration(run.config.network)[0] == SWEEP_FAMILY:
        method = open_sweep_method(f"{folder}#{run.shown}" if run.shown else folder)
    else:
        method = open_method(folder)
    return replace(method, name=run.key)


def _score_views(methods: list[Any], places: _Places, done: list[StudyRun]) -> Iterator[_Scored]:
    """Simulated places and, where given, ray-traced scenes: ideal split, no noise."""
    from depth_fusion_ros.evaluation import benchmark as bench

    yield ("simulated", "simulated, ideal split, no noise", bench.score(
        bench.simulated_samples(places.preset, places.evaluation_cache), methods))
    if places.raytraced is not None:
        yield ("raytraced", "raytraced, ideal split, no noise", bench.score(
            bench.raytraced_samples(places.raytraced, "ideal", "clean", _SEED), methods))


def _score_sweeps(methods: list[Any], places: _Places, done: list[StudyRun]) -> Iterator[_Scored]:
    """Held-out scenes of the training and, where given, ray-traced sweeps."""
    from depth_fusion_ros.evaluation.sweep_benchmark import score_sweeps
    from depth_fusion_ros.evaluation.sweep_samples import held_out_sweeps, raytraced_sweeps
    from depth_fusion_ros.training.sources import held_out_sweep_cache

    if not done:
        return
    config = done[0].config
    cache = held_out_sweep_cache(config.data, config.validation, places.cache)
    cache.render()
    yield ("held_out", "held-out simulated sweeps, 5 slices",
           score_sweeps(held_out_sweeps(cache), methods))
    for slices, noise in _RAYTRACED_SWEEPS if places.raytraced is not None else ():
        assert places.raytraced is not None
        yield (f"raytraced_{slices}_{noise}", f"ray-traced sweeps, {slices} slices, {noise}",
               score_sweeps(raytraced_sweeps(places.raytraced, noise, slices, _SEED), methods))


def _table(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("network", "seeds", "parameters", *_HEADINGS.values(), "ratio"):
        table.add_column(name, no_wrap=True, justify="left" if name == "network" else "right")
    for label, row in rows.items():
        table.add_row(
            label, ",".join(map(str, row["seeds"])), f"{row['parameters'] / 1e6:.2f} M",
            *(f"{row['mean'][c]:.4f}" for c in _HEADINGS),
            "–" if row["ratio"] is None else f"{row['ratio']:.2f}")
    return table

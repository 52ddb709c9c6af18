"""`depth-fusion study`: train several networks alike, score them alike, compare."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from depth_fusion_ros.cli.console import EXIT_UNUSABLE, console, fail, progress_bars

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.study import Study, StudyRun

_SEED = 0
_HEADINGS = {"one_minus_spearman": "1−|ρs|", "aiwe_1": "AIWE(1)", "aiwe_2": "AIWE(2)",
             "abs_rel": "AbsRel", "delta_1": "δ<1.25"}


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
        help="Comma-separated labels to train now; all that is trained is scored.")] = "",
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
    wanted = {label.strip() for label in only.split(",")} - {""}
    unknown = wanted - {entry.label for entry in study.entries}
    if unknown:
        fail(f"--only {', '.join(sorted(unknown))}: use labels of the study: "
             + ", ".join(entry.label for entry in study.entries), EXIT_UNUSABLE)
    root = out or Path("runs/study") / config.stem
    started = time.perf_counter()
    for run in runs(study):
        if (not wanted or run.label in wanted) and not finished(run, root):
            console.print(f"training {run.label!r}, seed {run.seed}", soft_wrap=True)
            _train(run, root, cache)
    _compare(study, root, preset, raytraced, evaluation_cache, {
        "config": config, "preset": preset, "raytraced": raytraced}, started)


def _train(run: StudyRun, root: Path, cache: Path) -> None:
    from depth_fusion_ros.training import trainer
    from depth_fusion_ros.training.parallel import start_processes
    from depth_fusion_ros.training.stages import prepare_folder, train

    folder = root / run.folder
    fabric = start_processes(run.config.hardware)
    prepare_folder(run.config, folder, fabric, restart=False)
    with progress_bars() as bars:
        rendering = bars.add_task("rendering scenes", total=None, note="")
        training = bars.add_task(run.label, total=None, note="")
        train(run.config, folder, cache, fabric, progress=trainer.Progress(
            lambda done, total, text: bars.update(rendering, completed=done, total=total),
            lambda done, total, text: bars.update(
                training, completed=done, total=total, note=text)))


def _compare(study: Study, root: Path, preset: str, raytraced: Path | None,
             evaluation_cache: Path, options: dict[str, Any], started: float) -> None:
    from depth_fusion_ros.evaluation import benchmark as bench
    from depth_fusion_ros.evaluation.methods import open_method
    from depth_fusion_ros.evaluation.run_record import run_record
    from depth_fusion_ros.evaluation.study import COLUMNS, compare, finished, runs

    done = [run for run in runs(study) if finished(run, root)]
    methods: list[Any] = []
    minutes: dict[str, list[float]] = {}
    parameters: dict[str, int] = {}
    for run in done:
        method: Any = open_method(str(root / run.folder))
        methods.append(replace(method, name=str(run.folder)))
        stages = [root / run.folder, *(root / run.folder / s.name for s in run.config.stages[:-1])]
        minutes.setdefault(run.label, []).append(round(sum(
            json.loads((folder / "run.json").read_text())["minutes"] for folder in stages), 1))
        parameters[run.label] = method.parameters
    sets: dict[str, Any] = {"simulated": bench.simulated_samples(preset, evaluation_cache)}
    if raytraced is not None:
        sets["raytraced"] = bench.raytraced_samples(raytraced, "ideal", "clean", _SEED)
    results: dict[str, Any] = {"study": {}}
    for kind, samples in sets.items():
        scored = bench.score(samples, methods)
        scores: dict[str, dict[int, dict[str, float]]] = {}
        for run in done:
            scores.setdefault(run.label, {})[run.seed] = {
                c: round(v, 6) for c, v in bench.summary(scored[str(run.folder)]).items()
                if c in COLUMNS}
        rows = compare(study, scores)
        for label, row in rows.items():
            row |= {"parameters": parameters[label], "minutes": minutes[label]}
        results["study"][kind] = rows
        console.print(_table(f"{kind}, ideal split, no noise", rows))
    results["reference"] = study.reference
    results["record"] = run_record("depth-fusion study", options, seeds={"sensor noise": _SEED},
                                   wall_time_s=time.perf_counter() - started)
    path = root / "study.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    console.print(f"written: {path}")


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

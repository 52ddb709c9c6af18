"""`depth-fusion stress-sweeps`: what motion, breathing and blank walls cost the estimator."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from depth_fusion_ros.cli.console import (
    EXIT_UNUSABLE,
    chosen,
    console,
    counted,
    fail,
    numbers,
    progress_bars,
    without_folder,
    without_nan,
)

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.sweep_stress import StressCase

_SEED = 0
_COLUMNS = {"twin_abs_rel": "without", "abs_rel": "with", "cost": "cost", "coverage": "left",
            "rejected": "none", "motion_px": "px", "blank_guessed": "guess",
            "blank_sigma_ratio": "σ ×"}
_SHARES = ("cost", "coverage", "rejected", "blank_guessed")


def stress_sweeps_command(
    raytraced: Annotated[Path, typer.Option(help="Folder of ray-traced scenes (scene_*.npz).")],
    methods: Annotated[str, typer.Option(
        help="Comma-separated: closed_form, shipped names, model cards.")] = "closed_form",
    slices: Annotated[int, typer.Option(
        min=3, help="How many of the stored slices are used.")] = 10,
    noise: Annotated[str, typer.Option(
        help="Comma-separated noise levels: clean,good,indoor,dim.")] = "clean",
    drift: Annotated[str, typer.Option(
        help="Comma-separated: px by which the picture moves from slice to slice.")] = "1,15",
    breathing: Annotated[str, typer.Option(
        help="Comma-separated: growth of fx per dioptre.")] = "0.04",
    rooms: Annotated[int, typer.Option(
        min=0, help="Simulated rooms in which breathing is rendered, 5 slices each.")] = 12,
    threads: Annotated[int, typer.Option(help="CPU threads, 0 = all.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for stress.json.")] = Path(
        "runs/stress_sweeps"),
) -> None:
    """Measure what drift, breathing and a blank wall cost: AbsRel with and without, and labels."""
    from depth_fusion_ros.estimation.focus_sweep import FocusSweepEstimator
    from depth_fusion_ros.estimation.model_card import ModelError
    from depth_fusion_ros.estimation.sweep_backends import load_sweep_backend
    from depth_fusion_ros.evaluation.run_record import run_record
    from depth_fusion_ros.evaluation.samples import NOISE
    from depth_fusion_ros.evaluation.sweep_samples import raytraced_sweeps
    from depth_fusion_ros.evaluation.sweep_stress import (
        SCORED,
        StressScore,
        blank_cases,
        breathing_cases,
        drift_cases,
    )

    options = {"raytraced": raytraced,
               "methods": ",".join(map(without_folder, methods.split(","))), "slices": slices,
               "noise": noise, "drift": drift, "breathing": breathing, "rooms": rooms,
               "threads": threads}
    levels = chosen("--noise", noise, NOISE)
    steps_px = numbers("--drift", drift, int)
    betas = numbers("--breathing", breathing, float)
    try:
        names = [name.strip() for name in methods.split(",") if name.strip()]
        estimators = {name: FocusSweepEstimator(
            load_sweep_backend(name, threads=threads), SCORED) for name in names}
        next(raytraced_sweeps(raytraced, slices=slices))
    except (ModelError, FileNotFoundError, ValueError) as error:
        fail(str(error), EXIT_UNUSABLE)
    if not estimators:
        fail(f"--methods {methods!r}: names nothing to measure; give e.g. closed_form",
             EXIT_UNUSABLE)

    started = time.perf_counter()
    sets: dict[str, dict[str, Any]] = {}

    def scored(name: str, cases: Iterator[StressCase]) -> None:
        scores = {method: StressScore() for method in estimators}
        with progress_bars() as bars:
            for case in counted(cases, bars, name):
                for method, estimator in estimators.items():
                    twin = estimator.estimate(case.twin.frame) if case.twin else None
                    scores[method].add(case, estimator.estimate(case.frame), twin)
        sets[name] = {method: score.row() for method, score in scores.items()}
        # After each set: what was measured is kept whatever becomes of the next one.
        results = without_nan({
            "stress": sets, "record": run_record(
                "depth-fusion stress-sweeps", options, seeds={"sensor noise": _SEED},
                wall_time_s=time.perf_counter() - started)})
        out.mkdir(parents=True, exist_ok=True)
        (out / "stress.json").write_text(
            json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    samples = partial(raytraced_sweeps, raytraced, slices=slices, seed=_SEED)
    try:
        for level, step_px in product(levels, steps_px):
            scored(f"drift {step_px} px/slice, {level}", drift_cases(samples(noise=level), step_px))
        for level, beta in product(levels, betas):
            scored(f"breathing {beta:.1%}/D, {level}", breathing_cases(rooms, beta, level))
        for level in levels:
            scored(f"blank half, {level}", blank_cases(samples(noise="clean"), level, _SEED))
    except ValueError as error:
        if sets:
            _show(raytraced.name, sets, out)
        fail(str(error), EXIT_UNUSABLE)
    _show(raytraced.name, sets, out)


def _show(folder: str, sets: dict[str, Any], out: Path) -> None:
    console.print(_table(folder, without_nan(sets)))
    console.print(f"written: {out / 'stress.json'}", soft_wrap=True)


def _table(folder: str, sets: dict[str, Any]) -> Table:
    table = Table(title=f"Focus sweeps under stress: drift and blank half on {folder} (ray-traced),"
                        " breathing in simulated rooms", title_justify="left",
                  caption="n: sweeps; AbsRel without and with it, its cost, pixels left; none: "
                          "sweeps without depth; px: motion found; guess: part of the wall "
                          "labelled as not measured; σ ×: median σ there / elsewhere, dioptres",
                  caption_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("disturbance\n  method")
    for heading in ("n", *_COLUMNS.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, rows in sets.items():
        table.add_row(name)
        for method, row in rows.items():
            table.add_row(f"  {Path(method).stem}", f"{row['scenes']:.0f}",
                          *(_cell(key, row.get(key)) for key in _COLUMNS))
        table.add_section()
    return table


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key in _SHARES:
        return f"{value:+.1%}" if key == "cost" else f"{value:.0%}"
    return f"{value:.1f}" if key in ("motion_px", "blank_sigma_ratio") else f"{value:.4f}"

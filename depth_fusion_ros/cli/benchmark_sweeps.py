"""`depth-fusion benchmark-sweeps`: every method on focus sweeps with truth, as JSON and table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
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
    from depth_fusion_ros.evaluation.benchmark import ImageScore
    from depth_fusion_ros.evaluation.sweep_benchmark import SweepMethod

_SEED = 0


def benchmark_sweeps_command(
    raytraced: Annotated[Path, typer.Option(help="Folder of ray-traced scenes (scene_*.npz).")],
    slices: Annotated[str, typer.Option(
        help="Comma-separated: how many of the stored slices are used.")] = "10,5",
    noise: Annotated[str, typer.Option(
        help="Comma-separated noise levels: clean,good,indoor,dim.")] = "clean,indoor",
    methods: Annotated[str, typer.Option(
        help="Comma-separated: closed_form, ring, laplacian, constant, run folders, model cards or "
             "shipped names; of a network RUN also RUN#volume (focus alone), RUN#prior (oracle), "
             "RUN#stand_in (fused with a prior made from the truth), RUN#stand_in_prior.",
    )] = "constant,laplacian,ring",
    lens: Annotated[str, typer.Option(
        help="Comma-separated: the lens's blur that methods are told, as multiples of the true "
             "one; 0 = they are told nothing.")] = "1",
    threads: Annotated[int, typer.Option(help="CPU threads, 0 = torch's choice.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for sweeps.json and sweeps.md.")] = Path(
        "runs/benchmark_sweeps"),
) -> None:
    """Score methods on ray-traced focus sweeps, by lens group."""
    import torch

    from depth_fusion_ros.evaluation.results_page import SWEEPS, condense
    from depth_fusion_ros.evaluation.results_page import table as markdown_table
    from depth_fusion_ros.evaluation.run_record import run_record
    from depth_fusion_ros.evaluation.samples import NOISE
    from depth_fusion_ros.evaluation.sweep_benchmark import score_sweeps
    from depth_fusion_ros.evaluation.sweep_samples import raytraced_sweeps

    options = {"raytraced": raytraced, "slices": slices, "noise": noise,
               "methods": ",".join(map(without_folder, methods.split(",")))}
    options |= {"lens": lens} if lens != "1" else {}
    options["threads"] = threads
    levels = chosen("--noise", noise, NOISE)
    counts, factors = numbers("--slices", slices, int), numbers("--lens", lens, float)
    if threads:
        torch.set_num_threads(threads)
    opened = _open_methods(methods)
    try:
        for count in counts:
            next(raytraced_sweeps(raytraced, slices=count))
    except (FileNotFoundError, ValueError) as error:
        fail(str(error), EXIT_UNUSABLE)
    started = time.perf_counter()
    sets: dict[str, Any] = {}
    with progress_bars() as bars:
        for count, level, factor in product(counts, levels, factors):
            name = f"{count} slices, {level}{_told(factor)}"
            samples = (replace(sample, blur_gain_px_m=factor * sample.blur_gain_px_m)
                       for sample in raytraced_sweeps(raytraced, level, count, _SEED))
            sets[name] = _rows(score_sweeps(counted(samples, bars, name), opened))
    results: dict[str, Any] = {
        SWEEPS: sets, "methods": {m.name: {"parameters": m.parameters} for m in opened},
        "record": run_record("depth-fusion benchmark-sweeps", options,
                             seeds={"sensor noise": _SEED},
                             wall_time_s=time.perf_counter() - started)}
    results = without_nan(results)
    out.mkdir(parents=True, exist_ok=True)
    console.print(_table(raytraced.name, results[SWEEPS]))
    for path, text in (
            (out / "sweeps.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n"),
            (out / "sweeps.md", markdown_table(condense(results), SWEEPS))):
        path.write_text(text)
        console.print(f"written: {path}", soft_wrap=True)


def _rows(scores: dict[str, list[ImageScore]]) -> dict[str, dict[str, Any]]:
    """Lens group → method → its row, see `benchmark.tabulate`."""
    from depth_fusion_ros.evaluation.benchmark import tabulate
    from depth_fusion_ros.evaluation.sweep_benchmark import by_lens

    rows: dict[str, dict[str, Any]] = {}
    for method, every in scores.items():
        for group, members in by_lens(every).items():
            rows.setdefault(group, {})[method] = tabulate(members, images=group == "all")
    return rows


def _told(factor: float) -> str:
    if factor == 1:
        return ""
    return f", lens told × {factor:g}" if factor else ", lens not told"


def _open_methods(names: str) -> Sequence[SweepMethod]:
    from depth_fusion_ros.estimation.model_card import ModelError
    from depth_fusion_ros.evaluation.sweep_benchmark import open_sweep_method

    opened: dict[str, SweepMethod] = {}
    try:
        for specification in filter(None, (name.strip() for name in names.split(","))):
            method = open_sweep_method(specification)
            if method.name in opened:
                fail(f"--methods {names}: two of them are called {method.name!r}; score them in "
                     "two runs, or rename one card", EXIT_UNUSABLE)
            opened[method.name] = method
    except ModelError as error:
        fail(str(error), EXIT_UNUSABLE)
    if not opened:
        fail("--methods: names nothing to score; give e.g. ring,laplacian", EXIT_UNUSABLE)
    return list(opened.values())


def _table(folder: str, sets: dict[str, Any]) -> Table:
    from depth_fusion_ros.evaluation.results_page import SWEEP_COLUMNS, cell, shown_groups

    table = Table(title=f"Ray-traced focus sweeps ({folder}); simulated light, exact truth",
                  title_justify="left")
    for name in ("set", "lenses", "method"):
        table.add_column(name, no_wrap=True)
    for heading in SWEEP_COLUMNS.values():
        table.add_column(heading.replace("\\", ""), justify="right", no_wrap=True)
    for name, groups in sets.items():
        for group in shown_groups(groups):
            for method, row in groups[group].items():
                table.add_row(name, f"{group} ({row['count']})", method, *(
                    cell(c, row["mean"].get(c)) for c in SWEEP_COLUMNS))
        table.add_section()
    return table

"""`depth-fusion benchmark`: accuracy on folders with truth, beside the closed-form baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

console = Console()
_COLUMNS = {"abs_rel": "AbsRel", "textured_abs_rel": "textured", "delta_1": "δ<1.25",
            "rmse_m": "RMSE m", "edge_abs_rel": "at edges", "within_1_sigma": "<1σ",
            "within_2_sigma": "<2σ"}


def benchmark_command(
    raytraced: Annotated[Path | None, typer.Option(
        help="Folder of ray-traced scenes (scene_*.npz).")] = None,
    real: Annotated[Path | None, typer.Option(
        help="Folder of real captures (dp119_*.npz).")] = None,
    model: Annotated[str, typer.Option(help="Shipped weights or a model card.")] = "difuse_net_s",
    backend: Annotated[str, typer.Option(help="auto, torch or onnxruntime.")] = "auto",
    noise: Annotated[str, typer.Option(
        help="Comma-separated noise levels of the ray-traced set: clean,good,indoor,dim.",
    )] = "clean,indoor",
    out: Annotated[Path, typer.Option(help="Folder for JSON and pictures.")] = Path(
        "runs/benchmark"),
) -> None:
    """Score a model and the closed form on ray-traced and real captures, in separate tables."""
    from depth_fusion_ros.estimation.backends import load_backend
    from depth_fusion_ros.estimation.dual_pixel import DualPixelEstimator
    from depth_fusion_ros.estimation.model_card import ModelError
    from depth_fusion_ros.evaluation import benchmark as bench

    if raytraced is None and real is None:
        console.print("[red]nothing to score: give --raytraced DIR, --real DIR or both[/red]")
        raise typer.Exit(2)
    levels = [level.strip() for level in noise.split(",")]
    unknown = [level for level in levels if level not in bench.NOISE]
    if unknown:
        console.print(f"[red]--noise {unknown}: use {', '.join(bench.NOISE)}[/red]")
        raise typer.Exit(2)
    try:
        engine = load_backend(model, backend=backend)
        name = engine.card.name if engine.card else model
        estimators = {
            "closed form": DualPixelEstimator(load_backend("closed_form"), bench.OPTIONS),
            name: DualPixelEstimator(engine, bench.OPTIONS),
        }
    except ModelError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(2) from error
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    if raytraced is not None:
        table = _table(f"Ray-traced scenes ({raytraced.name}); simulated light, exact truth")
        for split in bench.SPLITS:
            for level in levels:
                for name, estimator in estimators.items():
                    rows, _ = bench.score(bench.raytraced_samples(raytraced, split, level),
                                          estimator)
                    _add(table, results, f"{split} split, {level}", name, rows)
        console.print(table)
    if real is not None:
        table = _table(f"Real captures ({real.name}); k and focus calibrated on two flats")
        for name, estimator in estimators.items():
            lens = bench.calibrate_on_flats(real, estimator)
            console.print(f"{name}: k = {lens.disparity_gain_px_m:.3f} px·m, focus "
                          f"{lens.focus_diopters:.3f} D from the flats")
            rows, _ = bench.score(
                (s for s in bench.real_samples(real, lens) if "flat" not in s.name), estimator)
            for group in sorted({row["group"] for row in rows}):
                _add(table, results, f"real {group}", name,
                     [row for row in rows if row["group"] == group])
            _add(table, results, "real all", name, rows)
        console.print(table)
    (out / "benchmark.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"written: {out / 'benchmark.json'}")


def _table(title: str) -> Table:
    table = Table(title=title)
    table.add_column("set", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for title_text in _COLUMNS.values():
        table.add_column(title_text, justify="right", no_wrap=True)
    return table


def _add(table: Table, results: dict[str, Any], key: str, method: str,
         rows: list[dict[str, Any]]) -> None:
    from depth_fusion_ros.evaluation.benchmark import summary

    mean = summary(rows)
    table.add_row(key, method, *(f"{mean[c]:.3f}" for c in _COLUMNS))
    results.setdefault(key, {})[method] = {"mean": mean, "images": rows}

"""`depth-fusion benchmark`: every method on captures with truth, in tables and as JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from depth_fusion_ros.cli.console import (
    EXIT_UNUSABLE,
    chosen,
    console,
    counted,
    fail,
    progress_bars,
    without_nan,
)

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.benchmark import ImageScore
    from depth_fusion_ros.evaluation.methods import Method, MethodResult
    from depth_fusion_ros.evaluation.samples import Sample

_METRIC = {
    "abs_rel": "AbsRel", "abs_rel_0.6_to_2_m": "0.6–2 m", "textured_abs_rel": "textured",
    "smooth_textured_abs_rel": "smooth",
    "median_abs_rel": "median", "bias_rel": "bias", "delta_1": "δ<1.25", "rmse_m": "RMSE m",
    "silog": "SILog", "edge_abs_rel": "at edges", "within_1_sigma": "<1σ",
    "within_2_sigma": "<2σ"}
_AFFINE = {
    "one_minus_spearman": "1−|ρs|", "aiwe_1": "AIWE(1)", "aiwe_2": "AIWE(2)",
    "median_disparity_error_px": "|Δd| px", "textured_bound_distance": "× bound",
    "smooth_textured_bound_distance": "× bound smooth", "seconds": "s/image"}
_FINE = ("aiwe_1", "aiwe_2", "one_minus_spearman")  # shown with one digit more
_SEED = 0
CALIBRATED = "calibrated"
"""The soft split again, its κ calibrated at the same noise on other scenes of the camera."""


def benchmark_command(
    preset: Annotated[str, typer.Option(
        help="Simulated evaluation set, rendered by seed: eval.")] = "",
    raytraced: Annotated[Path | None, typer.Option(
        help="Folder of ray-traced scenes (scene_*.npz).")] = None,
    real: Annotated[Path | None, typer.Option(
        help="Folder of real captures (dp119_*.npz).")] = None,
    methods: Annotated[str, typer.Option(
        help="Comma-separated: closed_form, sgbm, constant, shipped names, model cards, run "
             "folders. Default: closed_form and --model.")] = "",
    model: Annotated[str, typer.Option(help="Shipped weights or a model card.")] = "difuse_net_s",
    backend: Annotated[str, typer.Option(help="auto, torch or onnxruntime.")] = "auto",
    noise: Annotated[str, typer.Option(
        help="Comma-separated noise levels, not for real captures: clean,good,indoor,dim.",
    )] = "clean,indoor",
    split: Annotated[str, typer.Option(
        help="Comma-separated: ideal, soft, calibrated (soft, κ found on other ray-traced scenes); "
             "not for real captures.")] = "ideal,soft",
    cache: Annotated[Path, typer.Option(
        help="Folder for the rendered simulated set (about 1 MB a scene).")] = Path("runs/eval"),
    threads: Annotated[int, typer.Option(help="CPU threads, 0 = all cores.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for benchmark.json.")] = Path(
        "runs/benchmark"),
    figures: Annotated[Path | None, typer.Option(
        help="Folder for pictures of the last method: good, typical and bad cases, reliability.",
    )] = None,
) -> None:
    """Score methods on simulated, ray-traced and real captures, in separate tables."""
    from depth_fusion_ros.evaluation import benchmark as bench
    from depth_fusion_ros.evaluation.run_record import run_record
    from depth_fusion_ros.simulation.evaluation_scenes import PRESETS

    options = {"preset": preset, "raytraced": raytraced, "real": real,
               "methods": methods or f"closed_form,{model}", "backend": backend, "noise": noise,
               "split": split, "threads": threads}
    if not (preset or raytraced or real):
        fail("nothing to score: give --preset eval, --raytraced DIR, --real DIR or several",
             EXIT_UNUSABLE)
    if preset and preset not in PRESETS:
        fail(f"--preset {preset}: use one of {', '.join(PRESETS)}", EXIT_UNUSABLE)
    levels = chosen("--noise", noise, bench.NOISE)
    splits = chosen("--split", split, (*bench.SPLITS, CALIBRATED))
    opened = _open_methods(str(options["methods"]), backend, threads)
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    results: dict[str, Any] = {}
    sources: dict[str, tuple[str, Any]] = {}
    with progress_bars() as bars:
        if preset:
            sources["simulated"] = (f"Simulated places (preset {preset}), by seed", lambda s, n: (
                bench.simulated_samples(preset, cache, s, n, _SEED, _rendering(bars))))
        if raytraced is not None:
            sources["raytraced"] = (
                f"Ray-traced scenes ({raytraced.name}); simulated light, exact truth",
                lambda s, n: _raytraced(raytraced, s, n))
        for key, (title, make) in sources.items():
            report = _Report(title)
            gallery = _Pictures(figures, opened)
            for one_split in (s for s in splits if s != CALIBRATED or key == "raytraced"):
                for level in levels:
                    name = f"{one_split} split, {level}"
                    samples = counted(make(one_split, level), bars, f"{key}: {name}")
                    report.add(name, bench.score(samples, opened, gallery.watch(name)))
            results[key] = report.finish(bars)
            gallery.write(key)
        if real is not None:
            results["real"] = _score_real(real, opened, bars, _Pictures(figures, opened))
    results["methods"] = {m.name: {"parameters": m.parameters} for m in opened}
    seeds = {"sensor noise": _SEED}
    if preset:
        seeds["simulated scenes"] = PRESETS[preset].seed
    results["record"] = run_record("depth-fusion benchmark", options, seeds=seeds,
                                   wall_time_s=time.perf_counter() - started)
    path = out / "benchmark.json"
    path.write_text(json.dumps(without_nan(results), indent=1, ensure_ascii=False) + "\n")
    console.print(f"written: {path}")


def _raytraced(folder: Path, split: str, noise: str) -> Iterator[Sample]:
    """The folder's samples; of the calibrated split with lenses found on one another."""
    from depth_fusion_ros.evaluation import benchmark as bench
    from depth_fusion_ros.evaluation.methods import open_method
    from depth_fusion_ros.evaluation.split_calibration import calibrated_lenses

    if split != CALIBRATED:
        return bench.raytraced_samples(folder, split, noise, _SEED)
    lenses = calibrated_lenses(bench.raytraced_samples(folder, "soft", noise, _SEED),
                               open_method("closed_form"))
    return bench.raytraced_samples(folder, "soft", noise, _SEED, lenses)


class _Report:
    """Collects the rows of one kind of captures: tables for people, a dict for JSON."""

    def __init__(self, title: str) -> None:
        self.metric = _table(f"{title}: metric depth", _METRIC)
        self.affine = _table(f"{title}: affine metrics, matching, time", _AFFINE)
        self.results: dict[str, Any] = {}

    def add(self, name: str, scores: dict[str, list[ImageScore]],
            groups: dict[str, str] | None = None) -> None:
        """Add a set's scores, whole and by group; `groups`: image → group, default its lens's."""
        from depth_fusion_ros.evaluation.benchmark import tabulate

        of = groups or {s.name: s.lens_group for rows in scores.values() for s in rows}
        kinds = sorted(set(of.values()) - {""}, reverse=True)
        for group in ["all", *(kinds if len(kinds) > 1 else [])]:
            for method, rows in scores.items():
                members = [r for r in rows if group in ("all", of[r.name])]
                row = tabulate(members, images=group == "all")
                self.results.setdefault(name, {}).setdefault(group, {})[method] = row
                for table, columns in ((self.metric, _METRIC), (self.affine, _AFFINE)):
                    table.add_row(name, group, method, *(
                        _cell(c, row["mean"][c]) for c in columns))
            for table in (self.metric, self.affine):
                table.add_section()

    def finish(self, bars: Progress) -> dict[str, Any]:
        """Print the tables and return the results."""
        bars.console.print(self.metric)
        bars.console.print(self.affine)
        return self.results


class _Pictures:
    """The gallery of the last method, or nothing where no folder for it was given."""

    def __init__(self, folder: Path | None, methods: Sequence[Method]) -> None:
        from depth_fusion_ros.evaluation.gallery import Gallery

        self._folder, self._gallery = folder, Gallery(methods[-1].name)

    def watch(self, name: str) -> Callable[[Sample, Method, MethodResult], None]:
        """See `Gallery.watch`; holds no images where nothing will be drawn."""
        return self._gallery.watch(name) if self._folder else lambda *_: None

    def write(self, kind: str) -> None:
        """Draw what was watched."""
        if self._folder:
            for path in self._gallery.write(self._folder, kind):
                console.print(f"written: {path}", soft_wrap=True)


def _score_real(folder: Path, methods: Sequence[Method], bars: Progress, pictures: _Pictures
                ) -> dict[str, Any]:
    """Real captures: k and focus from two flats, which are then not scored."""
    from depth_fusion_ros.evaluation import benchmark as bench

    report = _Report(f"Real captures ({folder.name}); k and focus calibrated on two flats")
    scores: dict[str, list[ImageScore]] = {}
    calibration = {}
    for method in methods:
        lens = bench.calibrate_on_flats(folder, method) if method.uses_lens else None
        if lens is not None:
            field = {} if lens.gain_field is None else lens.gain_field.to_dict()
            calibration[method.name] = {"k_px_m": lens.disparity_gain_px_m, "gain_field": field,
                                        "focus_diopters": lens.focus_diopters}
            bars.console.print(f"{method.name}: k = {lens.disparity_gain_px_m:.3f} px·m in the "
                               f"centre, focus {lens.focus_diopters:.3f} D from the flats")
        samples = (s for s in bench.real_samples(folder, lens) if "flat" not in s.name)
        scores.update(bench.score(counted(samples, bars, f"real: {method.name}"), [method],
                                  pictures.watch("real")))
    pictures.write("real")
    groups = {s.name: s.group for rows in scores.values() for s in rows}
    report.add("real", scores, groups)
    return {**report.finish(bars), "calibration": calibration}


def _open_methods(names: str, backend: str, threads: int) -> list[Method]:
    from depth_fusion_ros.estimation.model_card import ModelError
    from depth_fusion_ros.evaluation.methods import open_method

    opened: dict[str, Method] = {}
    try:
        for specification in filter(None, (name.strip() for name in names.split(","))):
            method = open_method(specification, backend=backend, threads=threads)
            if method.name in opened:
                fail(f"--methods {names}: two of them are called {method.name!r}; score them in "
                     "two runs, or rename one card", EXIT_UNUSABLE)
            opened[method.name] = method
    except ModelError as error:
        fail(str(error), EXIT_UNUSABLE)
    return list(opened.values())


def _rendering(bars: Progress) -> Any:
    task = bars.add_task("scenes at hand", total=1, note="")

    def show(done: int, total: int) -> None:
        bars.update(task, completed=done, total=total)
        if done == total:
            bars.remove_task(task)

    return show


def _table(title: str, columns: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("set", "lenses", "method"):
        table.add_column(name, no_wrap=True)
    for text in columns.values():
        table.add_column(text, justify="right", no_wrap=True)
    return table


def _cell(column: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if column in _FINE else f"{value:.3f}"

"""`depth-fusion replay-frame`: a saved frame again, and whether the same comes out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depth_fusion_ros.cli.console import EXIT_FAILED, EXIT_UNUSABLE, console, fail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from depth_fusion_ros.ros.frame_bundle import FrameBundle
    from depth_fusion_ros.ros.frame_replay import Comparison, ReplayedFrame

_WORDS = {"identical": "[green]same[/green]: identical in every pixel",
          "equal": "[green]same[/green] within {tolerance:g}",
          "different": "[bold red]different[/bold red]"}


def replay_frame_command(
    file: Annotated[Path, typer.Argument(help="That ~/save_frame of a depth node wrote.")],
    model: Annotated[str, typer.Option(
        help="In place of the frame's: shipped name, model card (.json), or closed_form.")] = "",
    parameter: Annotated[list[str] | None, typer.Option(
        "--parameter", "-p", help="NAME:=VALUE in place of the frame's; may be repeated.")] = None,
    tolerance: Annotated[float, typer.Option(
        min=0.0, help="Relative difference up to which numbers are equal.")] = 1e-5,
    out: Annotated[Path | None, typer.Option(
        help="Folder for a picture: inputs, saved depth, depth now, difference.")] = None,
) -> None:
    """Run a saved frame through the code of its node again and compare.

    Exit status: 0 the same within --tolerance; 1 different; 2 the file cannot be read or run.
    """
    from depth_fusion_ros.ros.environment import ros_problem

    if problem := ros_problem():
        fail(problem, EXIT_UNUSABLE)
    from depth_fusion_ros.estimation.model_card import ModelError
    from depth_fusion_ros.ros.frame_bundle import read_bundle
    from depth_fusion_ros.ros.frame_replay import compare, replay_frame, replay_values

    try:
        bundle = read_bundle(file)
        values = replay_values(bundle, parameter or [], model)
        replayed = replay_frame(bundle, values)
    except ModelError as error:
        fail(f"{error}. The frame was made by {bundle.header.model_id}: name those weights with "
             "--model", EXIT_UNUSABLE)
    except (ValueError, OSError, RuntimeError) as error:
        fail(str(error), EXIT_UNUSABLE)
    for line in _about(bundle):
        console.print(line, soft_wrap=True, markup=False)
    for line in _changes(bundle, replayed, values):
        console.print(f"[yellow]note[/yellow] {line}", soft_wrap=True)
    comparison = compare(bundle, replayed, tolerance)
    _print(comparison, tolerance)
    if out is not None and replayed.estimate is not None and bundle.outputs:
        console.print(f"picture: {_draw(out, file, bundle, replayed, comparison)}")
    if comparison.verdict == "different":
        raise typer.Exit(EXIT_FAILED)


def _about(bundle: FrameBundle) -> list[str]:
    header = bundle.header
    made_by = header.model_id + (f" on {header.device}" if header.device else "")
    what = "dual-pixel set"
    if header.sweep is not None:
        what = f"sweep of {len(header.sweep.slices)} slices"
    if "depth_m" in bundle.outputs:
        height, width = bundle.outputs["depth_m"].shape
        what += f", {width}x{height} px, {header.scale_state}"
    stamp = f"{header.stamp_ns // 10**9}.{header.stamp_ns % 10**9:09d}"
    return [f"{header.node}, stamp {stamp}: {what}",
            f"made by {made_by}, depth_fusion_ros {header.versions.get('depth_fusion_ros', '?')}"]


def _changes(bundle: FrameBundle, replayed: ReplayedFrame, values: Mapping[str, Any]) -> list[str]:
    """What is not as it was: versions, model, parameters."""
    from depth_fusion_ros.evaluation.run_record import versions
    from depth_fusion_ros.ros.frame_replay import parameter_changes

    header, here = bundle.header, versions()
    found = [f"{name}: {header.versions.get(name, 'none')} in the file, "
             f"{here.get(name, 'none')} here"
             for name in sorted(header.versions.keys() | here.keys())
             if header.versions.get(name) != here.get(name)]
    if (header.model_id, header.weights_sha256) != (replayed.model_id, replayed.weights_sha256):
        found.append(f"model: {_model(header.model_id, header.weights_sha256)} in the file, "
                     f"{_model(replayed.model_id, replayed.weights_sha256)} here")
    found += parameter_changes(bundle)
    found += [f"{name}: {old!r} in the file, {values[name]!r} here"
              for name, old in header.parameters.items()
              if name not in ("model.path", "model.sha256", "model.warmup_iterations")
              and values.get(name, old) != old]
    if header.inference_divisor != 1:
        found.append("overload: the network saw half the columns and rows, then and now")
    return found


def _model(model_id: str, sha256: str) -> str:
    return f"{model_id} ({sha256[:16]}…)" if sha256 else model_id or "unknown"


def _print(comparison: Comparison, tolerance: float) -> None:
    from rich.table import Table

    if comparison.maps:
        table = Table()
        for title in ("map", "largest relative difference", "pixels that differ"):
            table.add_column(title, justify="left" if title == "map" else "right")
        for each in comparison.maps:
            largest = "–" if math.isnan(each.largest) else f"{each.largest:.2g}"
            table.add_row(each.name, "identical" if each.identical else largest,
                          f"{100 * each.share:.3g} %")
        console.print(table)
    console.print(_WORDS[comparison.verdict].format(tolerance=tolerance), end="")
    console.print(f": {comparison.reason}" if comparison.reason else "", markup=False,
                  soft_wrap=True)


def _draw(out: Path, file: Path, bundle: FrameBundle, replayed: ReplayedFrame,
          comparison: Comparison) -> Path:
    from depth_fusion_ros.evaluation.contact_sheet import PictureRow, write_contact_sheet

    estimate = replayed.estimate
    assert estimate is not None
    if bundle.outputs["depth_m"].shape != estimate.depth_m.shape:
        fail("no picture: the depth has another size now; leave model.max_side_px and "
             "input.use_rgb as they were")
    row = PictureRow("replayed", comparison.verdict, bundle.outputs["depth_m"], estimate.depth_m,
                     estimate.sigma_m, replayed.seen)
    return write_contact_sheet(out / f"{file.stem}.png", [row],
                               title=f"{file.stem}: \"truth\" is the depth in the file")

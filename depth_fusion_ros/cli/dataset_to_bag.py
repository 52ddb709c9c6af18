"""`depth-fusion dataset-to-bag`: public data sets as rosbag2, one bag for each scene or capture."""

from __future__ import annotations

import time
from collections import Counter
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from depth_fusion_ros.cli.console import EXIT_FAILED, EXIT_UNUSABLE, console, fail, progress_bars

if TYPE_CHECKING:
    from depth_fusion_ros.cli.dataset_recording import Entry


class Kind(str, Enum):
    """What SOURCE is."""

    npz = "npz"
    ddff12 = "ddff12"
    google = "google-dual-pixel"
    dcdp = "dcdp"
    folder = "folder"
    nyu = "nyu"


_OPTIONS_OF = {
    Kind.npz: ("path", "split", "noise", "seed", "slices", "keep_breathing"),
    Kind.ddff12: ("split", "slices"),
    Kind.google: ("parallax_axis", "swap_views", "min_confidence", "fx_px"),
    Kind.dcdp: ("parallax_axis", "swap_views", "fx_px"),
    Kind.folder: ("fx_px",),
    Kind.nyu: ("slices", "focal_length_m", "f_number", "pixel_pitch_m", "fx_px"),
}


def dataset_to_bag_command(
    kind: Annotated[Kind, typer.Argument(
        help="npz: scenes of the benchmarks (scene_*.npz, dp119_*.npz); ddff12: an .h5 file; "
             "google-dual-pixel, dcdp, folder: folders of left, right, RGB and depth; nyu: "
             "pictures with depth, of which focus sweeps are made.")],
    source: Annotated[Path, typer.Argument(help="The folder, or DDFF-12's .h5 file.")],
    out: Annotated[Path, typer.Option(help="Folder for the bags, one folder each.")],
    only: Annotated[str, typer.Option(
        help="Only bags whose names match, for example 'scene_00*'.")] = "*",
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    overwrite: Annotated[bool, typer.Option(help="Replace bags that are there.")] = False,
    path: Annotated[str | None, typer.Option(
        help="npz: dual_pixel, focus_sweep or both (default both).")] = None,
    split: Annotated[str | None, typer.Option(
        help="npz: ideal or soft pixels (default ideal); ddff12: train or val (default val).",
    )] = None,
    noise: Annotated[str | None, typer.Option(
        help="npz, ray-traced: clean, good, indoor or dim (default clean).")] = None,
    seed: Annotated[int | None, typer.Option(help="npz: of the noise (default 0).")] = None,
    slices: Annotated[int | None, typer.Option(
        help="npz, ddff12, nyu: images of each sweep (default 10).")] = None,
    keep_breathing: Annotated[bool | None, typer.Option(
        "--keep-breathing", help="npz: leave slices at the magnification they were taken with.",
    )] = None,
    parallax_axis: Annotated[str | None, typer.Option(
        help="google-dual-pixel, dcdp: x or y (default y).")] = None,
    swap_views: Annotated[bool | None, typer.Option(
        "--swap-views", help="google-dual-pixel, dcdp: exchange left and right.")] = None,
    min_confidence: Annotated[float | None, typer.Option(
        help="google-dual-pixel: less is no truth (default 0.5).")] = None,
    fx_px: Annotated[float | None, typer.Option(
        "--fx", help="Focal length of the pictures, px, where the set tells none; without it "
                     "CameraInfo says \"not calibrated\" and depth nodes refuse the bag.")] = None,
    focal_length_m: Annotated[float | None, typer.Option(
        help="nyu: of the lens that sweeps are made with (default 0.05).")] = None,
    f_number: Annotated[float | None, typer.Option(help="nyu: the same (default 8).")] = None,
    pixel_pitch_m: Annotated[float | None, typer.Option(
        help="nyu: the same (default 12e-6).")] = None,
) -> None:
    """Turn a data set into bags that nodes and evaluators play; see docs/dataset_to_bag.md.

    Exit status: 0 every bag is there; 1 some could not be made, the others are there; 2 nothing
    could be made, or an argument is unusable.
    """
    given = {name: value for name, value in {
        "path": path, "split": split, "noise": noise, "seed": seed, "slices": slices,
        "keep_breathing": keep_breathing, "parallax_axis": parallax_axis,
        "swap_views": swap_views, "min_confidence": min_confidence, "fx_px": fx_px,
        "focal_length_m": focal_length_m, "f_number": f_number, "pixel_pitch_m": pixel_pitch_m,
    }.items() if value is not None}
    foreign = [name for name in given if name not in _OPTIONS_OF[kind]]
    if foreign:
        fail(f"{', '.join(map(_flag, foreign))}: not for {kind.value}, which takes "
             f"{', '.join(map(_flag, _OPTIONS_OF[kind]))}", EXIT_UNUSABLE)
    if storage not in ("mcap", "sqlite3"):
        fail(f"--storage {storage}: use mcap or sqlite3", EXIT_UNUSABLE)
    if not (source.is_file() if kind is Kind.ddff12 else source.is_dir()):
        fail(f"{source}: is no {'file' if kind is Kind.ddff12 else 'folder'}; SOURCE of kind "
             f"{kind.value} must be one", EXIT_UNUSABLE)
    try:
        entries = _entries(kind, source, given)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, FileNotFoundError) as error:
        fail(str(error), EXIT_UNUSABLE)
    except OSError as error:
        fail(f"--out {out}: cannot be made ({error}); choose another folder", EXIT_UNUSABLE)
    names = [entry.name for entry in entries]
    if not any(fnmatchcase(name, only) for name in names):
        fail(f"--only {only}: matches none of {len(names)} names, {names[0]} to {names[-1]}",
             EXIT_UNUSABLE)
    _convert_all(entries, out, only, storage=storage, overwrite=overwrite)


def _convert_all(entries: list[Entry], out: Path, only: str, *, storage: str, overwrite: bool
                 ) -> None:
    """Convert, say what became of each that is not simply written, and end with the status."""
    from depth_fusion_ros.cli.dataset_recording import convert

    counts: Counter[str] = Counter()
    uncalibrated = 0
    started = time.perf_counter()
    with progress_bars() as bars:
        task = bars.add_task("writing bags", total=sum(fnmatchcase(e.name, only) for e in entries),
                             note="")
        for entry in entries:
            wanted = fnmatchcase(entry.name, only)
            bars.update(task, note=entry.name if wanted else "")
            outcome = convert(entry, out, storage=storage, overwrite=overwrite, wanted=wanted)
            if outcome is None:
                continue
            counts[outcome.status] += 1
            uncalibrated += not outcome.calibrated
            bars.update(task, advance=1)
            if outcome.sentence:
                colour = "red" if outcome.status == "failed" else "yellow"
                console.print(f"[{colour}]{escape(outcome.sentence)}[/{colour}]", soft_wrap=True)
    written, kept, failed = (counts[s] for s in ("written", "kept", "failed"))
    if uncalibrated:
        console.print(f"[yellow]camera_info says \"not calibrated\" in {uncalibrated} of {written} "
                      "new bags, as the set tells no focal length: depth nodes refuse them; give "
                      "--fx if you know it[/yellow]", soft_wrap=True)
    console.print(f"{written} written, {kept} were there, {failed} failed, "
                  f"{time.perf_counter() - started:.1f} s: {out}", soft_wrap=True)
    if failed:
        raise typer.Exit(EXIT_FAILED if written or kept else EXIT_UNUSABLE)


def _entries(kind: Kind, source: Path, given: dict[str, Any]) -> list[Entry]:
    """Find the scenes; ValueError (DataError) where there are none or an option is wrong."""
    from depth_fusion_ros.cli import dataset_captures as captures
    from depth_fusion_ros.cli.dataset_scenes import SceneOptions, scene_entries

    if kind is Kind.npz:
        return scene_entries(source, SceneOptions(**given))
    find = {Kind.ddff12: captures.ddff12_entries, Kind.google: captures.google_entries,
            Kind.dcdp: captures.dcdp_entries, Kind.folder: captures.folder_entries,
            Kind.nyu: captures.rgbd_entries}[kind]
    return find(source, captures.LayoutOptions(**given))


def _flag(name: str) -> str:
    return "--fx" if name == "fx_px" else "--" + name.replace("_", "-")

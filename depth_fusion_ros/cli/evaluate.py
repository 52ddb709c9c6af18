"""`depth-fusion evaluate`: bags in, an answer out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depth_fusion_ros.bags import topics as names
from depth_fusion_ros.bags.find import find_bags
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.cli.console import (
    EXIT_FAILED,
    EXIT_UNUSABLE,
    console,
    fail,
    progress_bars,
    stop_in_order_on_termination,
)
from depth_fusion_ros.cli.costmap_file import costmap_parameters
from depth_fusion_ros.cli.evaluate_bag import Job, evaluate_bag
from depth_fusion_ros.cli.evaluate_report import (
    MOST_SHOWN,
    make_report,
    print_report,
    write_report,
)
from depth_fusion_ros.evaluation.rerun_file import HOW_TO_INSTALL, rerun_is_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

PATHS = ("dual_pixel", "focus_sweep")
RERUN_FRAMES_IN_ALL = 400
"""About 0.2 GB: of many bags fewer frames are kept of each, one at least."""

Outcome = tuple[str, "dict[str, Any] | None", str]
"""Name of a bag, its result, or why there is none."""


def evaluate_command(
    bags: Annotated[list[Path], typer.Argument(
        help="Bags (MCAP or sqlite3): folders with metadata.yaml, files, or folders of bags.")],
    reference: Annotated[str, typer.Option(
        help="Depth topic (relative to --namespace, or absolute), plane, or lidar.",
    )] = names.TRUTH_DEPTH,
    out: Annotated[Path, typer.Option(
        help="Folder for report.json, report.html, timing.json and bags/.")] = Path("evaluation"),
    path: Annotated[str, typer.Option(
        help="dual_pixel, focus_sweep, or auto: by what a bag has.")] = "auto",
    model: Annotated[str, typer.Option(
        help="Shipped name, model card (.json), or closed_form; empty = as in --params.")] = "",
    params: Annotated[list[Path] | None, typer.Option(
        help="Parameter file of the node, as for ROS; may be repeated.")] = None,
    parameter: Annotated[list[str] | None, typer.Option(
        "--parameter", "-p", help="NAME:=VALUE of the node; may be repeated.")] = None,
    lidar_topic: Annotated[str, typer.Option(
        help="PointCloud2 of --reference lidar, absolute.")] = "/points",
    plane_distance_m: Annotated[float, typer.Option(
        help="Of the board of --reference plane, along the optical axis.")] = 0.0,
    plane_region: Annotated[str, typer.Option(
        help="x,y,width,height in px that the board fills; empty = the whole image.")] = "",
    tolerance_s: Annotated[float, typer.Option(
        min=0.0, help="Largest difference of stamps of depth and reference.")] = 0.0,
    min_m: Annotated[float | None, typer.Option(
        help="Least true depth scored; empty = depth.min_m.")] = None,
    max_m: Annotated[float | None, typer.Option(
        help="Largest true depth scored; empty = depth.max_m.")] = None,
    namespace: Annotated[str, typer.Option(help="Of the camera.")] = names.DEFAULT_NAMESPACE,
    workers: Annotated[int, typer.Option(
        min=1, help="Processes on this computer.")] = 1,
    scheduler: Annotated[str, typer.Option(
        help="Address of a Dask scheduler, such as tcp://host:8786; it wins over --workers.",
    )] = "",
    threads: Annotated[int, typer.Option(
        min=1, help="Of each process; the same number gives the same digits.")] = 1,
    pictures: Annotated[bool, typer.Option(
        help="Draw the best, a typical and the worst frame of each bag.")] = True,
    rerun_frames: Annotated[int, typer.Option(
        min=0, help="Most frames of each bag in its Rerun file (bags/NAME.rrd); 0 = no files.",
    )] = 8,
    costmap: Annotated[Path | None, typer.Option(
        help="Nav2 YAML of the costmap that is fed; empty = the shipped voxel_layer.yaml.",
    )] = None,
) -> None:
    """Replay bags through the estimators of the nodes and score the depth against a reference.

    No middleware and no clock: every set is processed. What is finished stays: start the same
    command again after an interruption and it goes on. Exit status: 0 all bags are scored; 1 some
    could not be used, they are named; 2 none, or the command makes no sense.
    """
    started = time.perf_counter()
    stop_in_order_on_termination()
    kind = reference if reference in ("plane", "lidar") else "topic"
    values = _values(path, model, params or [], parameter or [], threads)
    try:
        found = find_bags(bags)
    except BagError as error:
        fail(str(error), EXIT_UNUSABLE)
    first = next(iter(values.values()))
    job = Job(
        path, values, _model_ids(path, values, found, namespace), kind,
        lidar_topic if kind == "lidar" else "" if kind == "plane" else reference,
        tolerance_s if kind != "lidar" or tolerance_s else 0.05, plane_distance_m,
        _region(plane_region), namespace, first["depth.min_m"] if min_m is None else min_m,
        first["depth.max_m"] if max_m is None else max_m, costmap_parameters(costmap), pictures,
        frames_of_each(rerun_frames, len(found)))
    _check(job)
    if job.rerun_frames and not rerun_is_installed():
        console.print(f"no Rerun files are written; to get them: {HOW_TO_INSTALL}")
    with progress_bars(time_left=True) as bars:
        task = bars.add_task("bags", total=len(found), note="")
        outcomes: dict[str, Outcome] = {}
        with _runner(workers, scheduler) as run:
            for outcome in run(job, found, (out / "bags").absolute()):
                outcomes[outcome[0]] = outcome
                bars.update(task, advance=1, note=outcome[0])
    results = [outcomes[name][1] for name in found]
    scored = [result for result in results if result is not None]
    failed = [{"name": name, "why": outcomes[name][2]} for name in found
              if outcomes[name][1] is None]
    for entry in failed[:MOST_SHOWN]:
        console.print(f"[red]{entry['name']}[/red]: {entry['why']}", soft_wrap=True)
    if not scored:
        fail(f"none of {len(found)} bags could be scored; nothing is written to {out}",
             EXIT_UNUSABLE)
    report = make_report(job, kind if kind != "topic" else reference, scored, failed)
    write_report(out, report, scored, time.perf_counter() - started)
    print_report(report, out)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _values(path: str, model: str, files: Sequence[Path], assignments: Sequence[str], threads: int
            ) -> dict[str, dict[str, Any]]:
    """Path → parameters; those of one path need not be known to the other."""
    from depth_fusion_ros.ros.environment import ros_problem

    if path not in ("auto", *PATHS):
        fail(f"--path {path}: must be auto, {' or '.join(PATHS)}", EXIT_UNUSABLE)
    if problem := ros_problem():
        fail(problem, EXIT_UNUSABLE)
    from depth_fusion_ros.ros.offline import TABLES
    from depth_fusion_ros.ros.parameter_values import parameter_values
    from depth_fusion_ros.ros.parameters import ParameterError

    wanted = PATHS if path == "auto" else (path,)
    given = [f"model.path:={model}"] if model else []
    found: dict[str, dict[str, Any]] = {}
    problems = []
    for name in wanted:
        try:
            found[name] = parameter_values(
                TABLES[name], files, [f"model.threads:={threads}", "model.warmup_iterations:=0",
                                      *given, *assignments])
        except ParameterError as error:
            problems.append(str(error))
    if not found:
        fail(problems[0], EXIT_UNUSABLE)
    return found


def _model_ids(path: str, values: Mapping[str, Mapping[str, Any]], bags: Mapping[str, Path],
               namespace: str) -> dict[str, str]:
    """Path → model, of the paths that the bags are for; a model that is broken ends the command."""
    from depth_fusion_ros.bags.reader import BagReader
    from depth_fusion_ros.cli.evaluate_bag import chosen_path
    from depth_fusion_ros.ros.offline import OfflineReplay

    wanted = Job(path, values, {}, "", "", 0.0, 0.0, None, namespace, 0.1, 1.0)
    needed = set()
    for bag_path in bags.values():
        try:
            with BagReader(bag_path) as bag:
                needed.add(chosen_path(bag, wanted))
        except BagError:
            continue  # said where it is scored
    found = {}
    for name in sorted(needed & set(values)):
        try:
            found[name] = OfflineReplay(name, values[name]).model_id
        except (ValueError, OSError, RuntimeError) as error:
            fail(str(error), EXIT_UNUSABLE)
    for name in sorted(needed - set(values)):
        fail(f"--parameter: one is unknown to {name}, which a bag is for; give --path",
             EXIT_UNUSABLE)
    return found


def frames_of_each(wanted: int, bags: int) -> int:
    """Frames in the Rerun file of each bag, so that all files together stay bounded."""
    return min(wanted, max(1, RERUN_FRAMES_IN_ALL // bags))


def _region(text: str) -> tuple[int, int, int, int] | None:
    if not text:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = -1
    if min(x, y) < 0 or min(width, height) <= 0:
        fail(f"--plane-region {text}: must be x,y,width,height in px, such as 100,80,120,90",
             EXIT_UNUSABLE)
    return x, y, width, height


def _check(job: Job) -> None:
    if not 0 < job.min_m < job.max_m:
        fail(f"--min-m {job.min_m:g} --max-m {job.max_m:g}: must be 0 < min < max", EXIT_UNUSABLE)
    if job.reference == "plane" and job.plane_m <= 0:
        fail(f"--plane-distance-m {job.plane_m:g}: must be above 0; measure from the lens to the "
             "board", EXIT_UNUSABLE)


Runner = Callable[[Job, Mapping[str, Path], Path], Iterator[Outcome]]


@contextmanager
def _runner(workers: int, scheduler: str) -> Iterator[Runner]:
    """Something that scores bags: this process, or Dask's."""
    if workers == 1 and not scheduler:
        yield lambda job, bags, folder: (_outcome(job, name, path, folder)
                                         for name, path in bags.items())
        return
    from distributed import Client, LocalCluster, as_completed

    def run(job: Job, bags: Mapping[str, Path], folder: Path) -> Iterator[Outcome]:
        waiting = client.map(lambda name, path: _outcome(job, name, path, folder), list(bags),
                             [path.absolute() for path in bags.values()], pure=False)
        for future in as_completed(waiting):
            yield future.result()

    try:
        cluster = None if scheduler else LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
        client = Client(scheduler or cluster)
    except OSError as error:
        fail(f"--scheduler {scheduler}: cannot be reached ({error}); start one with "
             "'dask scheduler'", EXIT_UNUSABLE)
    try:
        yield run
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _outcome(job: Job, name: str, path: Path, folder: Path) -> Outcome:
    try:
        return name, evaluate_bag(job, name, path, folder), ""
    except (BagError, ValueError) as error:
        return name, None, str(error)

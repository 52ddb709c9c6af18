"""`depth-fusion calibrate-lens`: a board at 3 to 5 distances -> camera file and HTML page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.cli.console import EXIT_UNUSABLE, console, fail, progress_bars
from depth_fusion_ros.optics.calibration_file import CalibrationError

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.lens_bag import ViewLevels
    from depth_fusion_ros.evaluation.lens_bench_fit import CameraCalibration
    from depth_fusion_ros.evaluation.lens_truth import TruthRow
    from depth_fusion_ros.optics.calibration_board import CalibrationBoard

NAME_RULE = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
CAMERA_FILES = Path("config/cameras")


def calibrate_lens_command(
    bags: list[Path] = typer.Argument(
        None, help="rosbag2 recordings of the board: focus stepped up and down at each distance "
        "(sweep/image_raw), dual-pixel sets at each distance (dp/left, dp/right), or both."),
    name: str = typer.Option("", help="Name of the camera: writes NAME.yaml and NAME.html."),
    out: Path = typer.Option(CAMERA_FILES, help="Folder of NAME.yaml."),
    report: Path = typer.Option(Path("calibration"), help="Folder of NAME.html."),
    overwrite: bool = typer.Option(False, help="Replace a camera file that is there."),
    board: str = typer.Option("charuco", help="charuco or apriltag (family 36h11)."),
    squares: str = typer.Option("5x4", help="ChArUco: squares across x down."),
    square_m: float = typer.Option(0.05, help="ChArUco: side of a square, metres."),
    marker_m: float = typer.Option(0.0375, help="ChArUco: side of a marker, metres."),
    dictionary: str = typer.Option("DICT_4X4_50", help="ChArUco: dictionary of the markers."),
    tags: str = typer.Option("1x1", help="AprilTag: tags across x down; 1x1 = a single tag."),
    tag_m: float = typer.Option(0.16, help="AprilTag: side of the black square, metres."),
    tag_gap_m: float = typer.Option(0.04, help="AprilTag: between neighbours, metres."),
    first_tag: int = typer.Option(0, help="AprilTag: id of the first tag."),
    namespace: str = typer.Option("/camera", help="Namespace of the recorded topics."),
    intrinsics_focus: float = typer.Option(
        None, help="Reported focus (dioptres) at which camera_info was calibrated; default: "
        "focused at infinity. Not used where camera_info follows the focus."),
    gain_terms: str = typer.Option(
        "", help="Terms of the gain field, such as x2,x4; none = one gain; default: the square "
        "along the parallax axis."),
    black_level: float = typer.Option(0.0, help="Counts of a dark pixel of the views."),
    white_level: float = typer.Option(0.0, help="Counts of a saturated one; 0 = full scale."),
    srgb_views: bool = typer.Option(False, help="The views are sRGB-encoded, not linear."),
    simulate: str = typer.Option(
        "", help="Record and calibrate simulated cameras of known truth instead: a name, several "
        "with commas, or all. Everything is written to the report folder."),
    live: bool = typer.Option(
        False, help="Record a running camera first, with advice on what is missing, into "
        "OUT/bags/NAME; Enter ends it."),
    wait_s: float = typer.Option(20.0, help="--live: longest wait for the camera's topics, s."),
    idle_s: float = typer.Option(
        10.0, help="--live: recording ends when nothing came for so long, s."),
    storage: str = typer.Option("mcap", help="--live: mcap or sqlite3."),
    quick: bool = typer.Option(False, help="With --simulate: three distances, smaller images."),
) -> None:
    """Calibrate lens and dual pixels from a board at three to five known-size distances."""
    from depth_fusion_ros.optics.calibration_board import BoardError, CalibrationBoard

    with _clear_endings():
        try:
            print_ = (CalibrationBoard.charuco(_size(squares, "--squares"), square_m, marker_m,
                                               dictionary) if board == "charuco" else
                      CalibrationBoard.apriltag(_size(tags, "--tags"), tag_m, tag_gap_m, first_tag))
        except BoardError as error:
            raise CalibrationError(str(error)) from None
        if board not in ("charuco", "apriltag"):
            raise CalibrationError(f"--board {board}: must be charuco or apriltag")
        if simulate:
            _simulated(simulate, print_, report, quick=quick)
            return
        if bool(bags) == live:
            raise CalibrationError("recordings and --live: give one of the two" if live else
                                   "no recording: name one or more bags, or try --live or "
                                   "--simulate all")
        if not re.fullmatch(NAME_RULE, name):
            raise CalibrationError(f"--name {name!r}: must be a file name of letters, digits and "
                                   "_ . -; it names the camera file")
        _check_levels(black_level, white_level)
        from depth_fusion_ros.evaluation.camera_file import check_free
        from depth_fusion_ros.evaluation.lens_bag import ViewLevels

        check_free(out / f"{name}.yaml", overwrite=overwrite)
        levels, terms = ViewLevels(black_level, white_level, not srgb_views), _terms(gain_terms)
        if live:
            from depth_fusion_ros.cli.calibrate_lens_live import record_live

            bags = [record_live(print_, levels, namespace, out / "bags", name, storage=storage,
                                wait_s=wait_s, idle_s=idle_s)]
        result = _calibrated(bags, print_, levels, namespace, intrinsics_focus, terms)
        _write(result, name, ", ".join(bag.name for bag in bags), out, report, overwrite)


@contextmanager
def _clear_endings() -> Iterator[None]:
    """End with one sentence and code 2 where the input is not good enough."""
    try:
        yield
    except (CalibrationError, BagError) as error:
        fail(str(error), EXIT_UNUSABLE)


def _calibrated(bags: list[Path], board: CalibrationBoard, levels: ViewLevels, namespace: str,
                intrinsics_focus: float | None, terms: list[tuple[int, int]] | None
                ) -> CameraCalibration:
    """Go through the bags and fit."""
    from depth_fusion_ros.evaluation.lens_bag import count_images, lens_images
    from depth_fusion_ros.evaluation.lens_errors import calibrate_with_errors
    from depth_fusion_ros.evaluation.lens_stations import StationCollector

    collector = StationCollector(board)
    with progress_bars() as bars:
        for bag in bags:
            task = bars.add_task(bag.name[:24], total=count_images(bag, namespace), note="")
            for image in lens_images(bag, levels, namespace):
                if image is not None:
                    collector.add(image)
                seen = collector.found.images_with_board + collector.found.sets_with_board
                bars.update(task, advance=1, note=f"board in {seen}")
            collector.pause()
    return calibrate_with_errors(collector.finish(), board, intrinsics_diopters=intrinsics_focus,
                                 gain_terms=terms)


def _write(result: CameraCalibration, name: str, source: str, out: Path, report: Path,
           overwrite: bool, truth: list[TruthRow] | None = None) -> None:
    """Show the result, and write camera file and page."""
    from depth_fusion_ros.evaluation.camera_file import camera_file_text, write_camera_file
    from depth_fusion_ros.evaluation.lens_page import calibration_page, result_rows

    if truth is None:
        _print_table(f"{name}: {result.board}", ("what", "value", "±", "meaning"),
                     [(r.quantity, r.value, r.error, r.meaning) for r in result_rows(result)])
    for note in result.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    text = camera_file_text(result, name, source)
    page = calibration_page(result, name, source, text, [row.cells() for row in truth or ()])
    write_camera_file(out / f"{name}.yaml", text, overwrite=overwrite)
    try:
        report.mkdir(parents=True, exist_ok=True)
        (report / f"{name}.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise CalibrationError(f"page in {report}: cannot be written ({error}); the camera file "
                               f"{out / name}.yaml is; choose another --report") from None
    console.print(f"camera file: {out / name}.yaml\npage: {report / name}.html", soft_wrap=True)


def _simulated(chosen: str, board: CalibrationBoard, report: Path, *, quick: bool) -> None:
    """Record, calibrate and judge simulated cameras."""
    from depth_fusion_ros.evaluation.lens_bag import ViewLevels
    from depth_fusion_ros.evaluation.lens_page import TRUTH_HEADS
    from depth_fusion_ros.evaluation.lens_truth import covered, truth_rows
    from depth_fusion_ros.evaluation.run_record import run_record
    from depth_fusion_ros.simulation.lens_bench import BENCH_CAMERAS, QUICK_PLAN, BenchPlan

    names = list(BENCH_CAMERAS) if chosen == "all" else chosen.split(",")
    if unknown := [name for name in names if name not in BENCH_CAMERAS]:
        raise CalibrationError(f"--simulate {','.join(unknown)}: use all, "
                               f"{', '.join(BENCH_CAMERAS)}")
    plan, started = QUICK_PLAN if quick else BenchPlan(), time.perf_counter()
    table: dict[str, list[TruthRow]] = {}
    for name in names:
        camera = BENCH_CAMERAS[name]
        bag = report / "bags" / name
        bag.parent.mkdir(parents=True, exist_ok=True)
        with _rendering(name) as on_image:
            _record(camera, board, plan, bag, on_image)
        result = _calibrated([bag], board, ViewLevels(), "/camera", None, None)
        table[name] = truth_rows(result, camera, plan)
        _print_table(f"{name} (simulated)", TRUTH_HEADS, [row.cells() for row in table[name]])
        _write(result, name, f"the simulated camera {name}", report, report, True, table[name])
    found = {"data": "simulated: ray-traced board, known lens", "board": board.text,
             "cameras": {name: [vars(row) for row in rows] for name, rows in table.items()},
             "record": run_record("depth-fusion calibrate-lens",
                                  {"simulate": chosen, "quick": quick},
                                  seeds={name: BENCH_CAMERAS[name].seed for name in names},
                                  wall_time_s=time.perf_counter() - started)}
    path = report / "truth_table.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"table: {path}", soft_wrap=True)
    console.print(covered([row for rows in table.values() for row in rows]), soft_wrap=True)
    missed = [f"{name}: {row.quantity}" for name, rows in table.items() for row in rows
              if row.met is False]
    if missed:
        fail(f"{len(missed)} targets are missed: {', '.join(missed)}")


def _record(*arguments: Any) -> None:
    from depth_fusion_ros.cli.simulated_lens_bag import record_bench

    record_bench(*arguments)


@contextmanager
def _rendering(name: str) -> Iterator[Callable[[int], None]]:
    with progress_bars() as bars:
        task = bars.add_task(f"render {name}", total=None, note="images")
        yield lambda done: bars.update(task, completed=done)


def _print_table(title: str, heads: tuple[str, ...], rows: list[Any]) -> None:
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def _size(text: str, option: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,2})x(\d{1,2})", text)
    if not match:
        raise CalibrationError(f"{option} {text}: must read ACROSSxDOWN, such as 5x4")
    return int(match.group(1)), int(match.group(2))


def _terms(text: str) -> list[tuple[int, int]] | None:
    """Powers of "x2,x4"; None = the default, an empty list = no field."""
    from depth_fusion_ros.optics.gain_field import FieldPolynomial

    if text in ("", "none"):
        return None if text == "" else []
    try:
        field = FieldPolynomial.from_dict({name.strip(): 0.0 for name in text.split(",")})
    except ValueError as error:
        raise CalibrationError(f"--gain-terms {text}: {error}") from None
    return [(i, j) for i, j, _ in field.terms]


def _check_levels(black: float, white: float) -> None:
    if white and not white > black:
        raise CalibrationError(f"--white-level {white:g} with --black-level {black:g}: white must "
                               "be above black; 0 = full scale")

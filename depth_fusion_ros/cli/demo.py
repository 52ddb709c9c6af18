"""`depth-fusion demo`: simulated bag → node over DDS → accuracy, latency, a picture."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from depth_fusion_ros.bags.reader import BagReader, DualPixelRecord
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.cli.bag import make_with_progress
from depth_fusion_ros.cli.console import (
    EXIT_UNUSABLE,
    console,
    fail,
    parse_size,
    progress_bars,
    stop_in_order_on_termination,
)
from depth_fusion_ros.cli.simulated_bag import SimulatedBag
from depth_fusion_ros.ros.environment import ensure_ros_environment, free_domain_id, ros_problem

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.contact_sheet import ContactSample
    from depth_fusion_ros.evaluation.report import ReplayReport
    from depth_fusion_ros.ros.replay_session import ReplayOutcome, ReplaySettings

SCORED_MIN_M, SCORED_MAX_M = 0.15, 8.0  # the node's depth range: truth outside is not scored
SHEET_ROWS = 4
CLOSED_FORM = "closed_form"  # the estimator without weights


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for bag, report and picture.")] = Path(
        "demo_output"
    ),
    frames: Annotated[int, typer.Option(min=1, help="Number of sets.")] = 40,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of all images, px.")] = "320x240",
    hz: Annotated[float, typer.Option(min=0.1, help="Sets per second in the bag.")] = 5.0,
    rate: Annotated[float, typer.Option(min=0.01, help="Playing speed; 1 = as recorded.")] = 1.0,
    camera: Annotated[
        str, typer.Option(help="Simulated camera: phone, robot_12mm, robot_16mm, robot_25mm.")
    ] = "robot_12mm",
    model: Annotated[
        str, typer.Option(help="Network: shipped name, model card (.json), or closed_form.")
    ] = "difuse_net_s",
    backend: Annotated[str, typer.Option(help="auto, torch or onnxruntime.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of scenes and noise.")] = 0,
    process_all: Annotated[
        bool, typer.Option(help="Process every set; default: the latest only, as on a robot.")
    ] = False,
) -> None:
    """Run the dual-pixel node on a simulated bag over real DDS and score what comes out.

    Exit status: 0 good; 1 a set is unaccounted for, nothing was estimated, or the node failed;
    2 the environment or an argument is unusable.
    """
    width, height = parse_size(size)
    _check_model(model)
    if problem := ros_problem():
        fail(problem, EXIT_UNUSABLE)
    domain = None if os.environ.get("ROS_DOMAIN_ID") else free_domain_id()
    ensure_ros_environment(domain_id=domain)
    stop_in_order_on_termination()
    plan = SimulatedBag(frames, width, height, hz, camera, seed)
    bag_path = _prepared_bag(plan, out / "bags" / plan.name)

    from depth_fusion_ros.ros.node_process import NodeFailure
    from depth_fusion_ros.ros.replay_session import ReplaySettings

    parameters: dict[str, Any] = {
        "model.path": model,
        "model.backend": backend,
        "model.warmup_width_px": width,
        "model.warmup_height_px": height,
        "depth.min_m": SCORED_MIN_M,
        "depth.max_m": SCORED_MAX_M,
        "replay.process_all": process_all,
        **_recorded_kappa(bag_path),
    }
    settings = ReplaySettings(parameters=parameters, rate=rate)
    log_path = out / "node.log"
    try:
        outcome = _replay(bag_path, settings, log_path, frames)
        report = _evaluate(bag_path, outcome, plan, settings, out)
    except (NodeFailure, BagError, RuntimeError) as error:
        fail(str(error))
    console.print(*report.tables(), sep="\n")
    for what, path in report.files.items():
        console.print(f"{what:<14} {path}", soft_wrap=True)
    _judge(report, log_path)


def _check_model(model: str) -> None:
    """End with a sentence if the model's card is missing or broken, before minutes of rendering."""
    if model == CLOSED_FORM:
        return
    from depth_fusion_ros.estimation.model_card import ModelError, find_card, load_card

    try:
        load_card(find_card(model))
    except ModelError as error:
        fail(f"{error}\nWithout weights: --model {CLOSED_FORM}", EXIT_UNUSABLE)


def _prepared_bag(plan: SimulatedBag, path: Path) -> Path:
    """Return the bag of these parameters, rendered unless it is there already."""
    if plan.is_at(path):
        console.print(f"bag from before: {path}")
        return path
    try:
        make_with_progress(plan, path)
    except ValueError as error:
        fail(str(error), EXIT_UNUSABLE)
    return path


def _recorded_kappa(bag_path: Path) -> dict[str, float]:
    """Return the calibrated κ of the simulated camera, which no message carries."""
    with BagReader(bag_path) as bag:
        kappa = bag.metadata.get("kappa")
    return {"lens.kappa": float(kappa)} if kappa else {}


def _replay(bag_path: Path, settings: ReplaySettings, log_path: Path, frames: int) -> ReplayOutcome:
    """Replay under two progress bars: node start, sets played."""
    from depth_fusion_ros.ros.replay_session import replay_through_node

    started = time.monotonic()
    with progress_bars() as bars:
        tasks = {
            "starting the node": bars.add_task("starting the node", total=1, note=""),
            "playing the bag": bars.add_task("playing the bag", total=frames, note="sets"),
        }

        def on_progress(what: str, done: int, total: int) -> None:
            bars.update(tasks[what], completed=done, total=total)

        outcome = replay_through_node(
            bag_path, settings, log_path=log_path, on_progress=on_progress
        )
    console.print(
        f"node active after {outcome.start_s:.1f} s, replay took "
        f"{time.monotonic() - started:.1f} s in all"
    )
    return outcome


def _evaluate(
    bag_path: Path,
    outcome: ReplayOutcome,
    plan: SimulatedBag,
    settings: ReplaySettings,
    out: Path,
) -> ReplayReport:
    """Score every estimate against the bag's truth and write picture, JSON and Rerun file."""
    from depth_fusion_ros.evaluation.contact_sheet import write_contact_sheet
    from depth_fusion_ros.evaluation.metrics import average_metrics, depth_metrics, percentiles_ms
    from depth_fusion_ros.evaluation.report import ReplayReport, median_stages, write_rerun
    from depth_fusion_ros.ros.collector import DEPTH, FRAME_REPORT, SIGMA

    collector = outcome.collector
    stamps = collector.stamps(DEPTH)
    shown = set(_spread(stamps, SHEET_ROWS))
    scores: list[dict[str, float]] = []
    samples: list[ContactSample] = []
    rerun_frames: list[tuple[int, dict[str, NDArray[Any]]]] = []
    with BagReader(bag_path) as bag:
        for index, record in enumerate(bag.frames()):
            depth = collector.image(DEPTH, record.stamp_ns)
            if depth is None or record.truth is None:
                continue
            sigma = collector.image(SIGMA, record.stamp_ns)
            sigma_m = sigma.array if sigma else np.full_like(depth.array, np.nan)
            score = depth_metrics(
                depth.array,
                record.truth.array,
                sigma_m=sigma_m,
                min_m=SCORED_MIN_M,
                max_m=SCORED_MAX_M,
            )
            scores.append(score)
            if record.stamp_ns in shown:
                sample = _sample(index, record, depth.array, sigma_m, score)
                samples.append(sample)
                rerun_frames.append((record.stamp_ns, _pictures(sample)))

    reports = collector.reports()
    model_id = str(reports[-1].model_id) if reports else str(settings.parameters["model.path"])
    accuracy = average_metrics(scores)
    files = {"bag": str(bag_path), "node log": str(out / "node.log")}
    if samples:
        title = (
            f"{model_id} on simulated {plan.camera}: AbsRel {accuracy['abs_rel']:.3f}, "
            f"δ<1.25 {accuracy['delta_1']:.3f}, {len(stamps)} of {len(collector.sets_sent)} sets"
        )
        sheet = write_contact_sheet(out / "contact_sheet.png", samples, title=title)
        files["picture"] = str(sheet)
        if rerun_file := write_rerun(out / "demo.rrd", rerun_frames):
            files["rerun"] = str(rerun_file)
    files["report"] = str(out / "report.json")
    report = ReplayReport(
        model_id=model_id,
        data=f"simulated data, {plan.camera}, seed {plan.seed}, truth {SCORED_MIN_M}–"
        f"{SCORED_MAX_M:g} m (+Inf counts as {SCORED_MAX_M:g} m)",
        sets_sent=len(collector.sets_sent),
        sets_estimated=len(collector.stamps(FRAME_REPORT)),
        sets_dropped=collector.drops(),
        accuracy=accuracy,
        latency_ms=percentiles_ms(collector.latencies_ms()),
        stages_ms=median_stages(collector.stages_ms()),
        files=files,
        settings={
            **asdict(plan),
            "play_rate": settings.rate,
            "parameters": dict(settings.parameters),
            "node_start_s": outcome.start_s,
            "player_largest_delay_s": outcome.played.largest_delay_s,
            "diagnostics": {k: v[1] for k, v in collector.diagnostic_messages().items()},
        },
    )
    report.write_json(out / "report.json")
    return report


def _sample(
    index: int,
    record: DualPixelRecord,
    depth_m: NDArray[np.float32],
    sigma_m: NDArray[np.float32],
    score: dict[str, float],
) -> ContactSample:
    """Return one row of the contact sheet."""
    from depth_fusion_ros.evaluation.contact_sheet import ContactSample

    assert record.left and record.right and record.rgb and record.truth
    return ContactSample(
        label=f"set {index}",
        rgb=record.rgb.array,
        left=record.left.array,
        right=record.right.array,
        truth_m=record.truth.array,
        depth_m=depth_m,
        sigma_m=sigma_m,
        note=f"AbsRel {score['abs_rel']:.3f}",
    )


def _pictures(sample: ContactSample) -> dict[str, NDArray[Any]]:
    """Return what the Rerun file shows of a sample: colour, and images in metres."""
    metres = {"truth": sample.truth_m, "depth": sample.depth_m, "sigma": sample.sigma_m}
    return {"rgb": sample.rgb, **metres}


def _spread(stamps: list[int], count: int) -> list[int]:
    """Return up to `count` of the stamps, evenly spread."""
    if not stamps:
        return []
    places = np.linspace(0, len(stamps) - 1, min(count, len(stamps)))
    return [stamps[round(place)] for place in places]


def _judge(report: ReplayReport, log_path: Path) -> None:
    """End with a failure if sets are unaccounted for or there was nothing to show."""
    if report.sets_estimated == 0:
        fail(f"nothing was estimated; the node's log is {log_path}")
    if not report.is_accounted:
        fail(
            f"{report.sets_missing} of {report.sets_sent} sets are unaccounted for: neither "
            f"estimated nor dropped with a cause; the node's log is {log_path}"
        )
    console.print("[green]every set is accounted for: estimated + dropped by cause = sent[/green]")

"""`depth-fusion demo`: simulated bags → nodes over DDS → accuracy, latency, pictures."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.cli.console import (
    EXIT_UNUSABLE,
    console,
    fail,
    parse_size,
    stop_in_order_on_termination,
)
from depth_fusion_ros.cli.demo_dual_pixel import DualPixelDemo
from depth_fusion_ros.cli.demo_path import PathDemo, problem_of
from depth_fusion_ros.cli.demo_sweep import SweepDemo
from depth_fusion_ros.cli.simulated_bag import SimulatedBag
from depth_fusion_ros.cli.simulated_sweep_bag import SimulatedSweepBag
from depth_fusion_ros.ros.environment import ensure_ros_environment, free_domain_id, ros_problem

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.report import ReplayReport


class PathChoice(str, Enum):
    """Which path the demo shows."""

    both = "both"
    dual_pixel = "dual_pixel"
    focus_sweep = "focus_sweep"


def demo_command(
    out: Annotated[
        Path, typer.Option(help="Folder for bags, and for report and picture of each path.")
    ] = Path("demo_output"),
    path: Annotated[PathChoice, typer.Option(help="What to show.")] = PathChoice.both,
    frames: Annotated[int, typer.Option(min=1, help="Number of dual-pixel sets.")] = 40,
    sweeps: Annotated[int, typer.Option(min=1, help="Number of focus sweeps.")] = 12,
    slices: Annotated[int, typer.Option(min=3, max=15, help="Images of each sweep.")] = 5,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of all images, px.")] = "320x240",
    hz: Annotated[float, typer.Option(min=0.1, help="Sets per second in the bag.")] = 5.0,
    sweep_hz: Annotated[float, typer.Option(min=0.1, help="Sweeps per second in the bag.")] = 1.0,
    rate: Annotated[float, typer.Option(min=0.01, help="Playing speed; 1 = as recorded.")] = 1.0,
    camera: Annotated[
        str, typer.Option(help="Simulated camera: phone, robot_12mm, robot_16mm, robot_25mm.")
    ] = "robot_12mm",
    model: Annotated[
        str,
        typer.Option(help="Dual-pixel network: shipped name, model card (.json), or closed_form."),
    ] = "difuse_net_s",
    sweep_model: Annotated[
        str,
        typer.Option(help="Focus-sweep network: shipped name, model card (.json), or closed_form."),
    ] = "sweep_depth",
    backend: Annotated[
        str, typer.Option(help="Of the dual-pixel network: auto, torch or onnxruntime.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of scenes and noise.")] = 0,
    process_all: Annotated[
        bool, typer.Option(help="Process every set; default: the latest only, as on a robot.")
    ] = False,
) -> None:
    """Run the nodes on simulated bags over real DDS and score what comes out.

    Dual-pixel sets go through dual_pixel_depth, focus sweeps through focus_sweep_depth, one after
    the other. Exit status: 0 good; 1 a set or slice is unaccounted for, nothing was estimated, or
    a node failed; 2 the environment or an argument is unusable.
    """
    width, height = parse_size(size)
    demos: list[PathDemo] = []
    if path is not PathChoice.focus_sweep:
        sets = SimulatedBag(frames, width, height, hz, camera, seed)
        demos.append(
            DualPixelDemo(sets, model=model, process_all=process_all, backend=backend))
    if path is not PathChoice.dual_pixel:
        recording = SimulatedSweepBag(sweeps, slices, width, height, sweep_hz, camera, seed)
        demos.append(SweepDemo(recording, model=sweep_model, process_all=process_all))
    for demo in demos:
        demo.check_model()  # before minutes of rendering
    if problem := ros_problem():
        fail(problem, EXIT_UNUSABLE)
    domain = None if os.environ.get("ROS_DOMAIN_ID") else free_domain_id()
    ensure_ros_environment(domain_id=domain)
    stop_in_order_on_termination()
    bags = [demo.prepared_bag(out / "bags") for demo in demos]
    problems = [
        _shown(demo, bag, out / demo.path_name, rate) for demo, bag in zip(demos, bags, strict=True)
    ]
    if any(problems):
        fail("\n".join(
            f"{demo.path_name}: {problem}" for demo, problem in zip(demos, problems) if problem))


def _shown(demo: PathDemo, bag: Path, folder: Path, rate: float) -> str:
    """Run one path and print what it found; return what is wrong with it, "" if nothing is."""
    from depth_fusion_ros.ros.node_process import NodeFailure

    console.rule(f"[bold]{demo.path_name}", align="left")
    try:
        report = demo.run(bag, folder, rate=rate)
    except (NodeFailure, BagError, RuntimeError) as error:
        return str(error)  # the other path is still worth showing
    console.print(*report.tables(), sep="\n")
    for what, file in report.files.items():
        console.print(f"{what:<14} {file}", soft_wrap=True)
    problem = problem_of(report, folder / "node.log")
    if not problem:
        console.print(f"[green]{_accounted(report)}[/green]")
    return problem


def _accounted(report: ReplayReport) -> str:
    text = f"every {report.unit} is accounted for: estimated + dropped by cause = sent"
    if report.slices_sent:
        text += f"; so is each of {report.slices_sent} slices"
    return text

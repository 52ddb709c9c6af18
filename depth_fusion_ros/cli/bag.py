"""`depth-fusion bag make | play | info`."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.typestore import BagError
from depth_fusion_ros.cli.console import EXIT_UNUSABLE, console, fail, parse_size, progress_bars
from depth_fusion_ros.cli.simulated_bag import SimulatedBag
from depth_fusion_ros.cli.simulated_recording import SimulatedRecording
from depth_fusion_ros.ros.environment import ensure_ros_environment, ros_problem

app = typer.Typer(help="Make, play and look into rosbag2 recordings.", no_args_is_help=True)

BagPath = Annotated[Path, typer.Argument(help="Folder of the bag, or a .mcap or .db3 file.")]


@app.command()
def make(
    path: Annotated[Path, typer.Argument(help="Folder to create.")],
    frames: Annotated[int, typer.Option(min=1, help="Number of sets.")] = 40,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of all images, px.")] = "320x240",
    rate: Annotated[float, typer.Option(min=0.1, help="Sets per second of bag time.")] = 5.0,
    camera: Annotated[
        str, typer.Option(help="Simulated camera: phone, robot_12mm, robot_16mm, robot_25mm.")
    ] = "robot_12mm",
    seed: Annotated[int, typer.Option(help="Of scenes and noise.")] = 0,
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    overwrite: Annotated[bool, typer.Option(help="Replace a bag that is there.")] = False,
) -> None:
    """Write a bag of simulated dual-pixel sets with ground truth."""
    width, height = parse_size(size)
    plan = SimulatedBag(frames, width, height, rate, camera, seed)
    if path.exists() and not overwrite:
        fail(f"{path} exists: choose another path, or give --overwrite", EXIT_UNUSABLE)
    try:
        make_with_progress(plan, path, storage=storage)
    except ValueError as error:
        fail(str(error), EXIT_UNUSABLE)
    info(path)


def make_with_progress(plan: SimulatedRecording, path: Path, *, storage: str = "mcap") -> None:
    """Render `plan` to `path` under a progress bar."""
    with progress_bars() as bars:
        task = bars.add_task(f"rendering {plan.unit}", total=plan.count, note=plan.camera)
        try:
            plan.make(
                path, storage=storage, on_frame=lambda done: bars.update(task, completed=done)
            )
        except BrokenProcessPool:
            fail(
                "a rendering process was killed, most likely for memory: each needs about 0.5 GB; "
                "free some, or choose a smaller --size"
            )


@app.command()
def info(path: BagPath) -> None:
    """Say what is in a bag."""
    try:
        with BagReader(path) as bag:
            table = Table(title=str(path), title_justify="left", title_style="bold")
            table.add_column("topic")
            table.add_column("messages", justify="right")
            table.add_column("type")
            for topic in bag.topics:
                table.add_row(topic.name, str(topic.message_count), topic.type_name)
            console.print(table)
            console.print(f"{bag.duration_s:.2f} s, {bag.message_count} messages")
            for key, value in sorted(bag.metadata.items()):
                console.print(f"{key}: {value}")
    except BagError as error:
        fail(str(error))


@app.command()
def play(
    path: BagPath,
    rate: Annotated[float, typer.Option(min=0.01, help="Speed against the recording.")] = 1.0,
    topic: Annotated[
        list[str] | None, typer.Option(help="Play only this topic; repeat for more.")
    ] = None,
    clock: Annotated[bool, typer.Option(help="Publish /clock in bag time.")] = True,
    wait: Annotated[
        float, typer.Option(min=0.0, help="Wait up to so many seconds for a subscriber first.")
    ] = 0.0,
) -> None:
    """Play a bag at its recorded pace, with /clock: start nodes with use_sim_time:=true."""
    if problem := ros_problem():
        fail(problem, EXIT_UNUSABLE)
    ensure_ros_environment()
    from depth_fusion_ros.ros.replay_session import play_bag

    try:
        with BagReader(path) as bag, progress_bars() as bars:
            task = bars.add_task("waiting", total=None, note=f"rate {rate:g}")
            report = play_bag(
                bag,
                rate=rate,
                topics=topic or (),
                publish_clock=clock,
                wait_s=wait,
                on_progress=lambda what, done, total: bars.update(
                    task, description=what, completed=done, total=total
                ),
            )
    except (BagError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted")
    for name, reason in report.skipped.items():
        console.print(f"[yellow]not played: {name}: {reason}[/yellow]")
    console.print(f"{report.total} messages in {report.wall_s:.2f} s")
    for name in report.unacknowledged:
        console.print(f"[yellow]{name}: a reliable subscriber did not acknowledge all[/yellow]")

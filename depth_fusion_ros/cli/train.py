"""`depth-fusion train`: one reproducible command from nothing to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console()


def train_command(
    config: Annotated[Path, typer.Option(help="Training configuration (YAML).")],
    out: Annotated[Path | None, typer.Option(
        help="Run folder; an existing run resumes. Default: runs/<configuration name>.")] = None,
    cache: Annotated[Path, typer.Option(
        help="Folder for rendered scenes (5 to 6 GB per 10 000 scenes).")] = Path("runs/cache"),
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    compile_tracer: Annotated[bool, typer.Option(
        "--compile", help="Compile the ray tracer (C++ compiler needed); renders 4-6x faster.",
    )] = False,
) -> None:
    """Train a network on simulated data; interrupt and start again to resume."""
    import torch

    from depth_fusion_ros.simulation.camera import trace
    from depth_fusion_ros.training import trainer as trainer_module
    from depth_fusion_ros.training.config import ConfigError, load_config

    try:
        settings = load_config(config)
    except ConfigError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(2) from error
    folder = out or Path("runs") / config.stem
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                  TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bars:
        rendering = bars.add_task("rendering scenes", total=settings.data.scenes)
        training = bars.add_task("training", total=settings.steps)

        def show(task: object) -> object:
            def update(done: int, total: int, text: str) -> None:
                bars.update(task, completed=done, total=total, description=text)  # type: ignore[arg-type]
            return update

        run = trainer_module.Trainer(
            settings, folder, cache, device,
            trainer_module.Progress(show(rendering), show(training)),  # type: ignore[arg-type]
            torch.compile(trace, dynamic=False) if compile_tracer else trace)
        if run.step:
            console.print(f"resuming {folder} at step {run.step}")
        weights = run.run()
    console.print(f"weights: {weights}\ncurve: {folder / 'curve.csv'}")

"""`depth-fusion train`: one reproducible command from nothing to weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from depth_fusion_ros.training.config import TrainingConfig

console = Console()


def train_command(
    config: Annotated[Path | None, typer.Option(
        help="Training configuration (YAML). Default: that of the run in --out.")] = None,
    out: Annotated[Path | None, typer.Option(
        help="Run folder. Default: runs/<configuration name>.")] = None,
    resume: Annotated[bool, typer.Option(
        "--resume/--restart", help="Go on with the run in the folder, or begin it anew.")] = True,
    cache: Annotated[Path, typer.Option(
        help="Folder for rendered scenes (5 to 6 GB per 10 000 scenes).")] = Path("runs/cache"),
    accelerator: Annotated[str | None, typer.Option(
        help="auto, cpu or cuda, in place of the configuration's.")] = None,
    devices: Annotated[int | None, typer.Option(
        help="Devices (processes) of this machine, in place of the configuration's.")] = None,
    precision: Annotated[str | None, typer.Option(
        help="32-true, bf16-mixed or 16-mixed, in place of the configuration's.")] = None,
) -> None:
    """Train a network; interrupt and start again to resume."""
    from depth_fusion_ros.training.captures import DataError
    from depth_fusion_ros.training.checkpoint import CheckpointError
    from depth_fusion_ros.training.config import ConfigError

    try:
        settings, folder = _settings(config, out, {
            "accelerator": accelerator, "devices": devices, "precision": precision})
        _train(settings, folder, cache, resume)
    except (ConfigError, CheckpointError, DataError, FloatingPointError) as error:
        console.print(f"[red]{error}[/red]", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _settings(config: Path | None, out: Path | None, hardware: dict[str, str | int | None]
              ) -> tuple[TrainingConfig, Path]:
    """Configuration with the command line's hardware, and the run folder.

    Raises:
        ConfigError: neither a configuration nor a run is given, or a field is wrong.
    """
    from depth_fusion_ros.training.config import ConfigError, load_config, with_hardware

    if config is None:
        if out is None or not (out / "config.yaml").is_file():
            raise ConfigError(f"--config is missing, and --out {out} holds no config.yaml of an "
                              "earlier run: give a training configuration")
        config = out / "config.yaml"
    settings = with_hardware(load_config(config), hardware)
    return settings, out or Path("runs") / config.stem


def _train(settings: TrainingConfig, folder: Path, cache: Path, resume: bool) -> None:
    from depth_fusion_ros.training import trainer
    from depth_fusion_ros.training.parallel import start_processes
    from depth_fusion_ros.training.stages import prepare_folder, train

    fabric = start_processes(settings.hardware)
    prepare_folder(settings, folder, fabric, restart=not resume)
    _say_where(fabric)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                  TimeElapsedColumn(), TimeRemainingColumn(), console=console,
                  disable=not fabric.is_global_zero) as bars:
        rendering = bars.add_task("rendering scenes", total=None)
        training = bars.add_task("training", total=None)

        def show(task: TaskID, done: int, total: int, text: str) -> None:
            bars.update(task, completed=done, total=total, description=text)

        weights = train(
            settings, folder, cache, fabric,
            progress=trainer.Progress(
                lambda done, total, text: show(rendering, done, total, text),
                lambda done, total, text: show(training, done, total, text),
                lambda text: bars.print(text, soft_wrap=True) if fabric.is_global_zero else None))
    if fabric.is_global_zero:
        console.print(f"weights: {weights}\ncurve: {folder / 'curve.csv'}", soft_wrap=True)


def _say_where(fabric: Fabric) -> None:
    if fabric.is_global_zero:
        plural = "es" if fabric.world_size > 1 else ""
        console.print(f"{fabric.world_size} process{plural} on {fabric.device.type}",
                      highlight=False)

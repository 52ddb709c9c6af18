"""`depth-fusion doctor`: what is installed, on which device, and do large messages arrive."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from depth_fusion_ros.cli.console import console
from depth_fusion_ros.ros.environment import (
    ensure_ros_environment,
    free_domain_id,
    ros_problem,
    user_dds_profile,
    uses_wheels,
)

GOOD, WARNING, BAD = "[green]ok[/green]", "[yellow]note[/yellow]", "[bold red]bad[/bold red]"
Row = tuple[str, str, str]  # what, verdict, detail
OPTIONAL_ROS = ("message_filters", "cv_bridge", "sensor_msgs_py", "tf2_ros", "launch_ros", "rviz2")


def doctor_command(
    transport: Annotated[
        bool, typer.Option(help="Send large best-effort messages between two processes.")
    ] = True,
) -> None:
    """Check this installation. Exit status 1 if something that is needed is bad."""
    ours = user_dds_profile() == ""
    ensure_ros_environment(domain_id=free_domain_id() if transport else None)
    rows: list[Row] = []
    for check in (_python, _torch, _onnxruntime, _weights, _ros, _middleware, _optional_ros):
        rows += _guarded(check)
    if ours:
        rows.append(("DDS profile", GOOD, f"set by this command: {user_dds_profile()}"))
    else:
        rows.append(("DDS profile", GOOD, f"yours: {user_dds_profile()}"))
    table = _table("depth-fusion doctor")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if transport and ros_problem() is None:
        rows += _transport()
    if any(verdict == BAD for _, verdict, _ in rows):
        raise typer.Exit(1)


def _python() -> list[Row]:
    good = sys.version_info >= (3, 10)
    where = f"{platform.python_version()} in {sys.prefix}; {os.cpu_count()} CPU cores"
    return [("Python", GOOD if good else BAD, where)]


def _torch() -> list[Row]:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
    else:
        device = f"CPU, {torch.get_num_threads()} threads (no CUDA device)"
    return [("PyTorch", GOOD, torch.__version__), ("device", GOOD, device)]


def _onnxruntime() -> list[Row]:
    runtime = importlib.import_module("onnxruntime")
    providers = ", ".join(
        p.removesuffix("ExecutionProvider") for p in runtime.get_available_providers()
    )
    return [("ONNX Runtime", GOOD, f"{runtime.__version__} ({providers})")]


def _weights() -> list[Row]:
    from depth_fusion_ros.estimation.model_card import shipped_models

    cards = shipped_models()
    if not cards:
        return [("weights", WARNING, "none shipped here: use --model closed_form")]
    return [("weights", GOOD, ", ".join(cards))]


def _ros() -> list[Row]:
    if problem := ros_problem():
        return [("ROS 2", BAD, problem)]
    rclpy_version = importlib.metadata.version("rclpy") if uses_wheels() else ""
    source = f"PyPI wheels, rclpy {rclpy_version}" if uses_wheels() else "sourced distribution"
    distribution = os.environ.get("ROS_DISTRO", "")
    own = importlib.import_module("depth_fusion_ros.msg")
    names = ", ".join(n for n in ("LensState", "FrameReport") if hasattr(own, n))
    return [
        ("ROS 2", GOOD, f"{source} {distribution}".strip()),
        ("our messages", GOOD if "FrameReport" in names else BAD, names or "missing"),
    ]


def _middleware() -> list[Row]:
    rows = []
    for name in ("RMW_IMPLEMENTATION", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_DOMAIN_ID"):
        rows.append((name, GOOD, os.environ.get(name, "not set")))
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return [
            *rows,
            ("shared memory", WARNING, "no /dev/shm: images go over UDP and may be lost"),
        ]
    status = os.statvfs(shared)
    free_mb = status.f_bavail * status.f_frsize / 2**20
    verdict = GOOD if free_mb > 256 else WARNING
    advice = "" if free_mb > 256 else ": need 64 MiB for each process (docker: --shm-size=1g)"
    return [*rows, ("shared memory", verdict, f"{free_mb:.0f} MiB free in /dev/shm{advice}")]


def _optional_ros() -> list[Row]:
    """Packages that have no wheels; our own small equivalents stand in where they are missing."""
    found = [name for name in OPTIONAL_ROS if _installed(name)]
    return [("ROS extras", GOOD, ", ".join(found) or "none (not needed: equivalents are built in)")]


def _installed(name: str) -> bool:
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    marker = Path("share", "ament_index", "resource_index", "packages", name)
    return any((Path(prefix) / marker).exists() for prefix in prefixes if prefix)


def _transport() -> list[Row]:
    """Send large best-effort messages; print a table of what arrived."""
    from depth_fusion_ros.ros.transport_check import REMEDY, check_transport

    with console.status("sending large best-effort messages between two processes …"):
        try:
            results = check_transport()
        except (RuntimeError, OSError) as error:
            console.print(f"[bold red]{error}[/bold red]")
            return [("transport", BAD, str(error))]
    table = _table("large best-effort messages, two processes")
    rows: list[Row] = []
    for result in results:
        verdict = GOOD if result.is_good else BAD
        detail = f"{result.received} of {result.sent} arrive, median {result.median_ms:.1f} ms"
        rows.append((f"{result.size_mb:g} MB", verdict, detail))
        table.add_row(*rows[-1])
    console.print(table)
    if not all(result.is_good for result in results):
        console.print(f"what to do: {REMEDY}", soft_wrap=True)
    return rows


def _guarded(check: Callable[[], list[Row]]) -> list[Row]:
    """Run one check; what it raises becomes its finding, so that the others still run."""
    try:
        return check()
    except Exception as error:  # a doctor reports, it does not faint
        return [(check.__name__.strip("_"), BAD, f"{type(error).__name__}: {error}")]


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table

"""What the commands share: one console, progress bars, clear failures."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False)

Named = TypeVar("Named")
Number = TypeVar("Number", int, float)

EXIT_FAILED = 1  # it ran, and what it found or did is not good
EXIT_UNUSABLE = 2  # it could not run: environment or arguments


def fail(text: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print a sentence in red and end the command."""
    console.print(f"[bold red]{escape(text)}[/bold red]", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def progress_bars(*, time_left: bool = False) -> Iterator[Progress]:
    """Show progress bars with counts and elapsed time, or the time that is left."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn() if time_left else TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


def counted(samples: Iterator[Named], bars: Progress, text: str) -> Iterator[Named]:
    """Pass samples (with a `name`) on and count them in a bar called `text`."""
    task = bars.add_task(text, total=None, note="")
    for sample in samples:
        yield sample
        bars.update(task, advance=1, note=getattr(sample, "name", ""))
    bars.remove_task(task)


def chosen(option: str, text: str, known: Collection[str]) -> list[str]:
    """Names of a comma-separated option; unknown ones end the command and are named."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        fail(f"{option} {','.join(unknown)}: use {', '.join(known)}", EXIT_UNUSABLE)
    return names


def numbers(option: str, text: str, kind: type[Number]) -> list[Number]:
    """Numbers >= 0 of a comma-separated option; anything else ends the command."""
    try:
        found = [kind(part) for part in text.split(",")]
        if all(0 <= number < math.inf for number in found):
            return found
    except ValueError:
        pass
    rule, example = {int: ("whole numbers", "10,5"), float: ("numbers >= 0", "1,0")}[kind]
    fail(f"{option} {text}: must be {rule} with commas between, e.g. {example}", EXIT_UNUSABLE)


def without_folder(specification: str) -> str:
    """What the record tells of a method: an absolute path loses its folder."""
    path = Path(specification.strip())
    return path.name if path.is_absolute() else str(path)


def without_nan(value: Any) -> Any:
    """The same for JSON: six digits, and null where a number is not finite."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def stop_in_order_on_termination() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, so that child processes are stopped on the way out.

    Python's default ends the process at once and would leave a node running.
    """

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) in px of "320x240".

    Raises:
        typer.BadParameter: not two positive integers with an x between.
    """
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if width < 32 or height < 32:
        raise typer.BadParameter(f"{text!r}: must read WIDTHxHEIGHT in px, each at least 32")
    return width, height

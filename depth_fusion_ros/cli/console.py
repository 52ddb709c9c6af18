"""What the commands share: one console, progress bars, clear failures."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(highlight=False)

EXIT_FAILED = 1  # it ran, and what it found or did is not good
EXIT_UNUSABLE = 2  # it could not run: environment or arguments


def fail(text: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print a sentence in red and end the command."""
    console.print(f"[bold red]{escape(text)}[/bold red]", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show progress bars with counts and elapsed time."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


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

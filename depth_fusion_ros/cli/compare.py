"""`depth-fusion compare`: two runs of `depth-fusion evaluate` on the same bags, frame by frame."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depth_fusion_ros.cli.compare_runs import (
    Run,
    RunError,
    not_comparable,
    read_run,
    what_differs,
)
from depth_fusion_ros.cli.console import EXIT_UNUSABLE, console, fail
from depth_fusion_ros.cli.evaluate_bag import json_text

if TYPE_CHECKING:
    from depth_fusion_ros.evaluation.comparison import Paired

SCHEMA = 1
MOST_SHOWN = 8
_COLOURS = {"better": "green", "worse": "red", "higher": "yellow", "lower": "yellow"}
_WORDS = {"better": "B better", "worse": "B worse", "higher": "B higher", "lower": "B lower",
          "unclear": "not clear", "equal": "the same", "too_few": "too few", "none": "no frame"}


def compare_command(
    run_a: Annotated[Path, typer.Argument(help="--out folder of 'depth-fusion evaluate': A.")],
    run_b: Annotated[Path, typer.Argument(help="The same bags with something else: B.")],
    out: Annotated[Path, typer.Option(
        help="Folder for compare.json and compare.html.")] = Path("comparison"),
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap's draws.")] = 0,
    resamples: Annotated[int, typer.Option(
        min=100, max=1_000_000, help="Number of the bootstrap's draws.")] = 10_000,
    force: Annotated[bool, typer.Option(
        "--force", help="Compare although reference or scored range differ.")] = False,
) -> None:
    """Compare two runs on the frames they share, with intervals that know what a bag is.

    Differences are B − A. An interval holds the true difference in about 95 of 100 such
    comparisons, for other bags like these; it comes from drawing bags, then frames within them.
    Exit status: 0 compared, whatever the answer; 2 the runs cannot be compared, nothing is written.
    """
    try:
        a, b = read_run(run_a), read_run(run_b)
    except RunError as error:
        fail(str(error), EXIT_UNUSABLE)
    unlike = not_comparable(a, b)
    if unlike and not force:
        fail("the runs were not scored alike: "
             + "; ".join(f"{row['what']} is {row['a']} in A and {row['b']} in B" for row in unlike)
             + "; evaluate one again, or give --force", EXIT_UNUSABLE)
    from depth_fusion_ros.evaluation.comparison import pair_frames

    paired = pair_frames(a.bags, b.bags)
    if not paired.pairs:
        fail(_why_nothing_is_shared(paired, a, b), EXIT_UNUSABLE)
    report = _report(a, b, paired, unlike, seed, resamples)
    try:
        _write(out, report, a, b)
    except OSError as error:
        fail(f"--out {out}: cannot be written ({error.strerror}); give another folder",
             EXIT_UNUSABLE)
    _print(report, out)


def _why_nothing_is_shared(paired: Paired, a: Run, b: Run) -> str:
    if paired.changed:
        return (f"no frame is in both runs: bag {paired.changed[0]} and {len(paired.changed) - 1} "
                "more have other data in B than in A; evaluate both on the same recording")
    if paired.renamed:
        name, other = next(iter(paired.renamed.items()))
        return (f"no frame is in both runs: the bag that A calls {name} is {other} in B; give "
                "'depth-fusion evaluate' the same folder of bags for both")
    if {bag["name"] for bag in a.bags} & {bag["name"] for bag in b.bags}:
        return ("no frame is in both runs: bags are shared, stamps are not; one run may have "
                "scored none of the other's sets")
    return (f"no bag is in both runs: A has {a.bags[0]['name']} and {len(a.bags) - 1} more, B "
            f"{b.bags[0]['name']} and {len(b.bags) - 1} more; evaluate both on the same bags")


def _report(a: Run, b: Run, paired: Paired, unlike: Sequence[Mapping[str, str]], seed: int,
            resamples: int) -> dict[str, Any]:
    """What compare.json has."""
    from depth_fusion_ros.evaluation import comparison
    from depth_fusion_ros.evaluation.cluster_bootstrap import FEWEST, LEVEL

    table, over = comparison.differences(paired, seed=seed, resamples=resamples)
    return {
        "schema": SCHEMA,
        "a": _side(a), "b": _side(b), "differs": what_differs(a, b), "not_comparable": list(unlike),
        "shared": {"bags": len(paired.bags), "frames": len(paired.pairs)},
        "only_a": dict(paired.only_a), "only_b": dict(paired.only_b),
        "changed": list(paired.changed), "renamed": dict(paired.renamed),
        "interval": {"level": LEVEL, "over": over, "fewest": FEWEST, "seed": seed,
                     "resamples": resamples},
        "notes": comparison.notes(paired, table, over),
        "metrics": [asdict(row) | {"says": comparison.VERDICTS[row.verdict]} for row in table],
        "by_bag": comparison.by_bag(paired), "by_frame": comparison.by_frame(paired)}


def _side(run: Run) -> dict[str, Any]:
    report = run.report
    return {"folder": str(run.folder), "model_ids": report["model_ids"],
            "reference": report["reference"], "settings": report["settings"],
            "parameters": report["parameters"], "versions": report["versions"],
            "bags": len(run.bags), "frames": sum(len(bag["rows"]) for bag in run.bags),
            "failed": len(report.get("failed", ()))}


def _write(out: Path, report: dict[str, Any], a: Run, b: Run) -> None:
    from depth_fusion_ros.evaluation.comparison_page import page

    command = shlex.join(["depth-fusion", *sys.argv[1:]])
    texts = {"compare.json": json_text(report),
             "compare.html": page(report | {"command": command}, a.picture, b.picture)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        part = out / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(out / name)


def _print(report: Mapping[str, Any], out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from depth_fusion_ros.evaluation.comparison import SHORT

    for side in ("a", "b"):
        console.print(f"{side.upper()}  {escape(report[side]['folder'])}: "
                      f"{escape(', '.join(report[side]['model_ids']))}", soft_wrap=True)
    for row in report["differs"][:MOST_SHOWN]:
        console.print(f"differs: {escape(row['what'])}: {escape(row['a'])} | {escape(row['b'])}",
                      soft_wrap=True)
    if not report["differs"]:
        console.print("differs: nothing that the runs record")
    if len(report["differs"]) > MOST_SHOWN:
        console.print(f"differs: {len(report['differs']) - MOST_SHOWN} more, see the page")
    if report["not_comparable"]:
        console.print("[bold red]not scored alike: the numbers mean different things[/bold red]")
    shared = report["shared"]
    table = Table(title=f"{_count(shared['frames'], 'frame')} of {_count(shared['bags'], 'bag')}")
    table.add_column("", no_wrap=True)
    for title in ("A", "B", "B − A", "95 % interval"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in report["metrics"]:
        if row["key"] not in SHORT:
            continue
        word, colour = _WORDS[row["verdict"]], _COLOURS.get(row["verdict"], "dim")
        table.add_row(escape(row["name"]), f"{row['a']:.3f}", f"{row['b']:.3f}",
                      f"{row['difference']:+.4f}", _interval(row),
                      f"[{colour}]{word}[/{colour}]")
    console.print(table)
    for note in report["notes"]:
        console.print(escape(note), soft_wrap=True)
    console.print(f"report: {out / 'compare.html'}, {out / 'compare.json'}", soft_wrap=True)


def _interval(row: Mapping[str, Any]) -> str:
    return "–" if math.isnan(row["low"]) else f"{row['low']:+.4f} … {row['high']:+.4f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

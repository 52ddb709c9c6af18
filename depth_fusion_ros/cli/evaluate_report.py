"""What `depth-fusion evaluate` says of all bags: report.json, the page, the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depth_fusion_ros.cli.console import console
from depth_fusion_ros.cli.evaluate_bag import Job, json_text

MOST_SHOWN = 10
_SHOWN = ("abs_rel", "rmse_m", "delta_1", "edge_abs_rel", "coverage", "within_1_sigma",
          "within_2_sigma")


def make_report(job: Job, reference: str, scored: Sequence[Mapping[str, Any]],
            failed: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What report.json has: nothing that differs from run to run."""
    from depth_fusion_ros.evaluation.costmap_score import costmap_figures
    from depth_fusion_ros.evaluation.replay_scores import summarise
    from depth_fusion_ros.evaluation.run_record import versions
    from depth_fusion_ros.ros.offline import TABLES

    used = sorted({str(result["path"]) for result in scored})
    sets = {key: sum(result["sets"][key] for result in scored)
            for key in ("received", "estimated", "scored", "without_reference",
                        "without_metric_depth")}
    return {
        "title": f"Depth of {len(scored)} bag{'' if len(scored) == 1 else 's'}",
        "reference": reference, "model_ids": [job.model_ids[path] for path in used],
        "settings": {"namespace": job.namespace, "reference": job.reference, "topic": job.topic,
                     "tolerance_s": job.tolerance_s, "plane_m": job.plane_m,
                     "region": job.region, "min_m": job.min_m, "max_m": job.max_m,
                     "costmap": dict(job.costmap)},
        "parameters": {path: {name: value for name, value in job.values[path].items()
                              if value != TABLES[path].rows[name].default} for path in used},
        "versions": versions(), "sets": sets, "failed": list(failed),
        "summary": summarise(row for result in scored for row in result["rows"]),
        "costmap": costmap_figures(result["costmap"]["counts"] for result in scored),
        "bags": [{"name": result["name"], "sha256": result["sha256"], "path": result["path"],
                  "calibration": result["calibration"],
                  "model_id": result["model_id"], "sets": result["sets"],
                  "why_dropped": result["why_dropped"], "summary": result["summary"],
                  "costmap": {"frame": result["costmap"]["frame"],
                              **result["costmap"]["figures"]},
                  "frame_abs_rel": [row["metrics"]["abs_rel"] for row in result["rows"]]}
                 for result in scored]}


def write_report(out: Path, report: dict[str, Any], scored: Sequence[Mapping[str, Any]],
                 wall_s: float) -> None:
    """Write report.json, timing.json and report.html."""
    import shlex
    import sys

    from depth_fusion_ros.evaluation.replay_page import write_page
    from depth_fusion_ros.evaluation.run_record import hardware

    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json_text(report), encoding="utf-8")
    (out / "timing.json").write_text(json_text({
        "wall_s": wall_s, "hardware": hardware(),
        "estimate_ms": {result["name"]: result["estimate_ms"] for result in scored}}),
        encoding="utf-8")
    pictures, recordings = ({name: out / "bags" / f"{name.replace('/', '__')}{suffix}"
                             for name in (str(result["name"]) for result in scored)}
                            for suffix in (".png", ".rrd"))
    command = shlex.join(["depth-fusion", *sys.argv[1:]])
    write_page(out / "report.html", report | {"command": command}, pictures, [
        path.relative_to(out).as_posix() for path in recordings.values() if path.is_file()])


def print_report(report: Mapping[str, Any], out: Path) -> None:
    """Print the figures of all bags and of the worst, and where everything is."""
    from rich.table import Table

    from depth_fusion_ros.evaluation.replay_page import COLUMNS

    table = Table(title=f"{', '.join(report['model_ids'])} against {report['reference']}")
    table.add_column("bag", overflow="ellipsis", no_wrap=True, max_width=20)
    for key in _SHOWN:
        table.add_column(COLUMNS[key], justify="right", no_wrap=True)
    worst = sorted(report["bags"], key=lambda bag: -bag["summary"]["metrics"]["abs_rel"])
    for bag in worst[:MOST_SHOWN]:
        table.add_row(bag["name"], *(f"{bag['summary']['metrics'][key]:.3f}" for key in _SHOWN))
    if len(worst) > MOST_SHOWN:
        table.add_row(f"… {len(worst) - MOST_SHOWN} better ones")
    table.add_section()
    table.add_row(f"{report['summary']['frames']} frames", *(
        f"{report['summary']['metrics'][key]:.3f}" for key in _SHOWN))
    console.print(table)
    _print_costmap(report)
    console.print(f"report: {out / 'report.html'}, {out / 'report.json'}")


def _print_costmap(report: Mapping[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from depth_fusion_ros.evaluation.replay_page import COSTMAP_COLUMNS, costmap_text

    table = Table(title="costmap against the one of the reference", box=box.SIMPLE_HEAD,
                  collapse_padding=True, pad_edge=False)  # nine columns in eighty characters
    table.add_column("bag", overflow="ellipsis", no_wrap=True, max_width=20)
    for name in COSTMAP_COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    worst = sorted(report["bags"], key=lambda bag: -_or_zero(bag["costmap"]["false_share"]))
    for bag in worst[:MOST_SHOWN]:
        table.add_row(bag["name"], *costmap_text(bag["costmap"]))
    if len(worst) > MOST_SHOWN:
        table.add_row(f"… {len(worst) - MOST_SHOWN} better ones")
    table.add_section()
    table.add_row(f"{report['costmap']['updates']} updates", *costmap_text(report["costmap"]))
    console.print(table)
    frames = dict.fromkeys(str(bag["costmap"]["frame"]) for bag in report["bags"])
    notes = {"frame of the costmap": "; ".join(frames), **report["costmap"]["why"]}
    for what, why in notes.items():
        console.print(f"{what}: {why}", soft_wrap=True)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value

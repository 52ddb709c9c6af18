"""Runs of `depth-fusion evaluate`, read back whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depth_fusion_ros.cli.evaluate_bag import finished

COMPARABLE = {
    "reference": "reference", "topic": "topic of the reference",
    "plane_m": "distance of the plane [m]", "region": "region of the plane [px]",
    "tolerance_s": "tolerance of stamps [s]", "min_m": "least true depth scored [m]",
    "max_m": "largest true depth scored [m]"}
"""Settings that decide which pixels are scored against what."""
DEFAULT = "default"


class RunError(Exception):
    """A folder is no whole run; one sentence that says what to do."""


@dataclass(frozen=True)
class Run:
    """What `depth-fusion evaluate` left in a folder.

    Attributes:
        folder: as the user named it. report: report.json, null as None.
        bags: bags/NAME.json of the bags that it scored, null as NaN.
    """

    folder: Path
    report: Mapping[str, Any]
    bags: tuple[Mapping[str, Any], ...]

    def picture(self, bag: str) -> Path:
        """Where the best, a typical and the worst frame of a bag are drawn."""
        return self.folder / "bags" / f"{bag.replace('/', '__')}.png"


def read_run(folder: Path) -> Run:
    """Read a run.

    Raises:
        RunError: the folder or a file is missing or damaged, or files are of different runs.
    """
    target = folder / "report.json"
    if not target.is_file():
        raise RunError(f"{folder}: has no report.json; give the --out folder of a "
                       "'depth-fusion evaluate' that ended")
    again = f"run 'depth-fusion evaluate' with --out {folder} again"
    try:
        report = json.loads(target.read_text(encoding="utf-8"))
        listed = [(str(bag["name"]), bag) for bag in report["bags"]]
        settings, named = report["settings"], (report["model_ids"], report["parameters"],
                                               report["versions"], report["reference"])
        missing = [key for key in COMPARABLE if key not in settings]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{target}: is damaged, or of another version of the package "
                       f"({_short(error)}); {again}") from None
    if missing or not listed or not all(isinstance(part, kind) for part, kind in zip(
            named, (list, dict, dict, str))):
        raise RunError(f"{target}: is damaged, or of another version of the package; {again}")
    return Run(folder, report, tuple(_bag(folder, name, entry, again) for name, entry in listed))


def _bag(folder: Path, name: str, listed: Mapping[str, Any], again: str) -> Mapping[str, Any]:
    target = folder / "bags" / f"{name.replace('/', '__')}.json"
    found = finished(target)
    if found is None:
        raise RunError(f"{target}: is missing or damaged; {again}")
    try:
        for row in found["rows"]:
            if not isinstance(row["stamp_ns"], int) or not all(
                    isinstance(value, (int, float)) for value in row["metrics"].values()):
                raise TypeError("a row is no row of numbers")
        same = (found["name"], found["sha256"], found["model_id"]) == (
            name, listed["sha256"], listed["model_id"])
        errors = [_none(row["metrics"]["abs_rel"]) for row in found["rows"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{target}: is damaged ({_short(error)}); {again}") from None
    if not same or errors != listed.get("frame_abs_rel"):
        raise RunError(f"{target}: is not what report.json was made of, as after a run that was "
                       f"interrupted; {again}")
    return found


def what_differs(a: Run, b: Run) -> list[dict[str, str]]:
    """Models, parameters, settings and versions that are not the same: rows of what, a, b."""
    left, right = _described(a), _described(b)
    return [{"what": name, "a": left.get(name, _absent(name)), "b": right.get(name, _absent(name))}
            for name in dict.fromkeys((*left, *right))
            if left.get(name, _absent(name)) != right.get(name, _absent(name))]


def not_comparable(a: Run, b: Run) -> list[dict[str, str]]:
    """Settings that make numbers of the two runs mean different things: rows of what, a, b."""
    return [{"what": text, "a": _text(a.report["settings"][key]),
             "b": _text(b.report["settings"][key])}
            for key, text in COMPARABLE.items()
            if a.report["settings"][key] != b.report["settings"][key]]


def _described(run: Run) -> dict[str, str]:
    report = run.report
    found = {"model": ", ".join(map(str, report["model_ids"]))}
    for path, parameters in report["parameters"].items():
        found |= {f"{path}: {name}": _text(value) for name, value in parameters.items()}
    found |= {text: _text(report["settings"][key]) for key, text in COMPARABLE.items()}
    return found | {f"version of {name}": str(value)
                    for name, value in report["versions"].items()}


def _absent(name: str) -> str:
    return "not there" if name.startswith("version of ") else DEFAULT


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:90]

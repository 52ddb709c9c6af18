"""What a replay showed, as tables for people (rich) and JSON for programs.

    report = ReplayReport(...)
    console.print(*report.tables())
    report.write_json(path)

The report draws no conclusions but one: `is_accounted`, whether every set that was sent is
estimated or dropped with a cause, and every slice of a focus sweep used or dropped with a cause.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

GAUSSIAN_SHARES = {"within_1_sigma": 0.683, "within_2_sigma": 0.954}


@dataclass(frozen=True)
class ReplayReport:
    """Outcome of one replay of a bag through a depth node.

    Attributes:
        model_id: "<name>@<sha256[:8]>" as the node reported it.
        data: one sentence about the data, e.g. "simulated, robot_12mm, seed 0".
        sets_sent: sets of which every input was published.
        sets_estimated: sets answered with depth.
        sets_dropped: cause -> number, as the node reported it.
        accuracy: averaged metrics (see evaluation.metrics); empty without truth.
        latency_ms: percentiles, last input of a set published -> depth received.
        stages_ms: median wall time of each stage inside the node, and of the whole.
        files: what -> path of what was written.
        settings: whatever makes the run repeatable (rate, size, camera, seed, …).
        unit: what a set is called: "set" or "sweep".
        slices_sent: images of the sweeps; 0 on a path that has no slices.
        slices: how they ended -> number, as the node reported it.
    """

    model_id: str
    data: str
    sets_sent: int
    sets_estimated: int
    sets_dropped: Mapping[str, int] = field(default_factory=dict)
    accuracy: Mapping[str, float] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "set"
    slices_sent: int = 0
    slices: Mapping[str, int] = field(default_factory=dict)

    @property
    def sets_missing(self) -> int:
        """Sets sent that were neither estimated nor reported as dropped; < 0: answered twice."""
        return self.sets_sent - self.sets_estimated - sum(self.sets_dropped.values())

    @property
    def slices_missing(self) -> int:
        """Slices sent that the node neither used nor dropped with a cause (pending ones too)."""
        ends = (n for how, n in self.slices.items() if how not in ("received", "pending"))
        return self.slices_sent - sum(ends)

    @property
    def is_accounted(self) -> bool:
        """True if estimated + dropped by cause = sent, for sets and for slices."""
        return self.sets_missing == 0 and self.slices_missing == 0

    def tables(self) -> list[Table]:
        """Return the tables to print: sets, slices if there are, accuracy, latency."""
        slices = [self._slices_table()] if self.slices_sent else []
        return [self._sets_table(), *slices, self._accuracy_table(), self._latency_table()]

    def to_json(self) -> str:
        """Return the report as JSON; NaN and infinities become null."""
        missing = {"sets_missing": self.sets_missing, "slices_missing": self.slices_missing}
        content = {**asdict(self), **missing}
        return json.dumps(_without_nan(content), indent=2, ensure_ascii=False) + "\n"

    def write_json(self, path: Path) -> Path:
        """Write `to_json` to a file and return its path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    def _sets_table(self) -> Table:
        table = _table(f"{self.unit.capitalize()}s", "count")
        table.add_row("sent", str(self.sets_sent))
        table.add_row("estimated", str(self.sets_estimated))
        for cause, count in sorted(self.sets_dropped.items()):
            table.add_row(f"dropped: {cause}", str(count))
        _add_missing(table, self.sets_missing)
        return table

    def _slices_table(self) -> Table:
        table = _table("Slices", "count")
        table.add_row("sent", str(self.slices_sent))
        for how, count in sorted(self.slices.items(), reverse=True):
            if how != "received" and (count or how == "used_complete"):
                name = how.replace(".", ": ").replace("used_", "used in a sweep that is ")
                table.add_row(name, str(count))
        _add_missing(table, self.slices_missing)
        return table

    def _accuracy_table(self) -> Table:
        table = _table("Accuracy", "value", "meaning")
        rows = (
            ("abs_rel", "AbsRel", "mean |Z − T| / T, per image"),
            ("delta_1", "δ<1.25", "share of pixels within 25 %"),
            ("rmse_m", "RMSE in m", ""),
            ("edge_abs_rel", "AbsRel at depth edges", ""),
            ("coverage", "coverage", "share of true pixels with an answer"),
            ("within_1_sigma", "errors within 1σ", "a Gaussian has 0.683"),
            ("within_2_sigma", "errors within 2σ", "a Gaussian has 0.954"),
        )
        for key, name, meaning in rows:
            if key in self.accuracy:
                table.add_row(name, f"{self.accuracy[key]:.3f}", meaning)
        table.caption = f"{self.model_id}; {self.data}"
        return table

    def _latency_table(self) -> Table:
        table = _table("Latency", "ms", "what")
        last = "last slice" if self.slices_sent else "set"
        meaning = f"{last} published → depth received (over DDS)"
        for key in ("p50_ms", "p95_ms", "p99_ms"):
            if key in self.latency_ms:
                table.add_row(key.removesuffix("_ms"), f"{self.latency_ms[key]:.1f}", meaning)
                meaning = ""
        meaning = "median inside the node"
        for stage, milliseconds in self.stages_ms.items():
            table.add_row(stage, f"{milliseconds:.1f}", meaning)
            meaning = ""
        return table


def median_stages(stages_ms: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each stage's milliseconds; stages without values are left out."""
    return {name: float(np.median(values)) for name, values in stages_ms.items() if len(values)}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index == 0 else "left")
    return table


def _add_missing(table: Table, missing: int) -> None:
    table.add_row("unaccounted for", str(missing), style="bold red" if missing else "green")


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON has no form for by None, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

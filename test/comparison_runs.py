"""Folders as `depth-fusion evaluate` leaves them, written by hand for tests of `compare`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depth_fusion_ros.cli.evaluate_bag import json_text

SETTINGS = {"namespace": "/camera", "reference": "topic", "topic": "ground_truth/depth",
            "tolerance_s": 0.0, "plane_m": 0.0, "region": None, "min_m": 0.15, "max_m": 8.0}


def frame(stamp_ns: int, abs_rel: float, **more: float) -> dict[str, Any]:
    return {"stamp_ns": stamp_ns, "metrics": {"abs_rel": abs_rel, "coverage": 0.9, **more},
            "ranges": {}, "sigma": {}, "provenance": {}}


def bag(name: str, errors: Sequence[float], *, data: str = "", model: str = "net@1", first: int = 0
        ) -> dict[str, Any]:
    """One bag's result: a frame a second, stamps from `first` on; `data` stands for its content."""
    return {"name": name, "key": "k", "model_id": model, "path": "dual_pixel",
            "sha256": hashlib.sha256((data or name).encode()).hexdigest(),
            "rows": [frame((first + index) * 10**9, error) for index, error in enumerate(errors)]}


def write_run(folder: Path, bags: Sequence[Mapping[str, Any]], *, pictures: bool = False,
              settings: Mapping[str, Any] | None = None,
              parameters: Mapping[str, Any] | None = None) -> Path:
    (folder / "bags").mkdir(parents=True)
    listed = []
    for result in bags:
        stem = folder / "bags" / result["name"].replace("/", "__")
        stem.with_name(f"{stem.name}.json").write_text(json_text(result))
        if pictures:
            import cv2

            picture = np.full((30, 90, 3), 128, np.uint8)
            assert cv2.imwrite(str(stem.with_name(f"{stem.name}.png")), picture)
        listed.append({key: result[key] for key in ("name", "sha256", "model_id", "path")} | {
            "frame_abs_rel": [row["metrics"]["abs_rel"] for row in result["rows"]]})
    (folder / "report.json").write_text(json_text({
        "model_ids": sorted({str(result["model_id"]) for result in bags}),
        "reference": "ground_truth/depth", "settings": SETTINGS | dict(settings or {}),
        "parameters": {"dual_pixel": dict(parameters or {})},
        "versions": {"depth_fusion_ros": "0.1.0"}, "failed": [], "bags": listed}))
    return folder

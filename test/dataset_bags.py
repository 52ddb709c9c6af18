"""Runs depth-fusion dataset-to-bag and reads the one scene of a bag back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from depth_fusion_ros.bags.reader import BagReader
from depth_fusion_ros.bags.records import DualPixelRecord, SweepRecord
from depth_fusion_ros.cli.main import app


def convert(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["dataset-to-bag", *map(str, arguments)], env={"COLUMNS": "250"})


def the_set(bag: Path) -> DualPixelRecord:
    with BagReader(bag) as reader:
        (record,) = reader.frames()
    return record


def the_sweep(bag: Path) -> SweepRecord:
    with BagReader(bag) as reader:
        (record,) = reader.sweeps()
    return record


def custom(bag: Path) -> dict[str, str]:
    with BagReader(bag) as reader:
        return reader.metadata

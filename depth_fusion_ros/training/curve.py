"""The curve of a run: curve.csv always, a TensorBoard log where TensorBoard is installed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

FIELDS = ("step", "minutes", "learning_rate", "loss", "log_depth", "mae_px", "offset_px",
          "val_mae_px", "val_abs_log_depth", "val_within_1_sigma", "affine_mae",
          "affine_gradient", "val_affine_mae")
"""Columns of curve.csv; a column that a loss does not have stays empty."""


class Curve:
    """Writes rows of one run; construct it again on the same folder to go on.

    Args:
        folder: of the run. step: rows after it are dropped, they will be made again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "curve.csv"
        self._fields: tuple[str, ...] = FIELDS
        if self.path.exists():
            self._drop_after(step)
        self._tensorboard = _tensorboard(folder / "tensorboard", step)

    def write(self, row: dict[str, float]) -> None:
        """Append a row; keys that are no columns go to TensorBoard only."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._fields, extrasaction="ignore",
                                    lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({k: round(v, 6) for k, v in row.items()})
        if self._tensorboard is not None:
            for key, value in row.items():
                if key != "step":
                    group = "held_out" if key.startswith("val_") else "training"
                    self._tensorboard.add_scalar(f"{group}/{key}", value, int(row["step"]))

    def close(self) -> None:
        """Flush what TensorBoard holds back."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _drop_after(self, step: int) -> None:
        lines = self.path.read_text().splitlines()
        self._fields = tuple(lines[0].split(",")) if lines else FIELDS
        kept = lines[:1] + [row for row in lines[1:] if int(row.split(",")[0]) <= step]
        self.path.write_text("\n".join(kept) + "\n")


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer whose events after `step` of earlier writers are hidden; None if not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)

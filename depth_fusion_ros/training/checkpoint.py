"""The resumable state of a run: one file, replaced as a whole.

No random state is in it: every batch is seeded by its step, so network, EMA weights, optimiser and
step are all there is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depth_fusion_ros.training.config import TrainingConfig

FREE_TO_CHANGE = ("hardware", "threads", "checkpoint_every_steps", "validation")
"""Fields that may differ on resuming without changing what is trained."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed; the text names the file and the remedy."""


@dataclass
class Checkpoint:
    """State after `step` steps.

    Attributes:
        network, ema: state dicts. optimizer: of AdamW. precision: of the loss scaler of
            16-bit training, else empty. minutes: trained so far. config: that it was made with.
    """

    step: int
    minutes: float
    network: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    precision: dict[str, Any]
    config: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write it; an interrupted write leaves the old file."""
        state = {**vars(self), "config": json.dumps(self.config)}
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    @staticmethod
    def load(path: Path, device: torch.device | str) -> Checkpoint | None:
        """Read it; None if there is none.

        Raises:
            CheckpointError: the file is not a checkpoint.
        """
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            config = json.loads(state.pop("config", "{}"))
            return Checkpoint(**{"precision": {}, **state}, config=config)
        except Exception as error:  # torch.load has no error of its own
            raise CheckpointError(f"{path}: cannot be read as a checkpoint ({error}); delete it "
                                  "to begin anew, or give another run folder") from error

    def changes(self, config: TrainingConfig) -> list[str]:
        """What `config` asks differently, "field: old → new"; [] if the run goes on as it was.

        Raises:
            CheckpointError: another network.
        """
        now = config.model_dump(mode="json")
        before = {**now, **self.config}
        if before["network"] != now["network"]:
            raise CheckpointError(
                f"the run folder holds a run of {before['network']!r}, the configuration says "
                f"{now['network']!r}; give another run folder, or delete the checkpoint")
        return [f"{name}: {before[name]} → {value}" for name, value in now.items()
                if name not in FREE_TO_CHANGE and before[name] != value]

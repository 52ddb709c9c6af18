"""Memory-mapped arrays of rendered scenes, filled chunk by chunk; rendering resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depth_fusion_ros.simulation.textures import make_atlas

CHUNK = 16
ATLAS_SCENES = 512
ATLAS_TILES = 64


def cache_key(prefix: str, config: Any) -> str:
    """Name of a cache folder: the prefix and a hash of the dataclass `config`."""
    text = json.dumps(asdict(config), sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class RenderCache:
    """Base of caches; a subclass makes its arrays with `_array` and fills them in `_render_chunk`.

    Args:
        folder: of the arrays. scenes: how many, a multiple of `CHUNK`. seed: of everything in it;
            a chunk depends on the seed and its number alone.

    Raises:
        ValueError: scenes is not a multiple of `CHUNK`.
    """

    def __init__(self, folder: Path, scenes: int, seed: int) -> None:
        if scenes % CHUNK:
            raise ValueError(f"scenes = {scenes}: must be a multiple of {CHUNK}")
        self.folder, self.scenes, self._seed = folder, scenes, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self._done_file = self.folder / "done.txt"

    def _array(self, name: str, shape: tuple[int, ...], dtype: type) -> Any:
        path = self.folder / f"{name}.npy"
        if path.exists():
            return np.lib.format.open_memmap(path, mode="r+")
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    @property
    def rendered(self) -> int:
        """Scenes rendered so far."""
        return int(self._done_file.read_text()) if self._done_file.exists() else 0

    def render(self, device: str = "cpu", progress: Callable[[int], None] = lambda n: None
               ) -> None:
        """Render what is missing."""
        atlas = torch.empty(0)
        for start in range(self.rendered, self.scenes, CHUNK):
            if not len(atlas) or start % ATLAS_SCENES == 0:
                atlas = self._atlas(start // ATLAS_SCENES)
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + start)
            with torch.inference_mode():
                self._render_chunk(slice(start, start + CHUNK), generator, atlas, device)
            self._done_file.write_text(str(start + CHUNK))
            progress(start + CHUNK)

    def _render_chunk(self, part: slice, generator: torch.Generator, atlas: Tensor, device: str
                      ) -> None:
        raise NotImplementedError

    def _atlas(self, index: int) -> Tensor:
        """Textures of the `ATLAS_SCENES` scenes from there on: they cost more than the scenes."""
        seed = self._seed * 7_000_003 + index
        return make_atlas(ATLAS_TILES, torch.Generator().manual_seed(seed))

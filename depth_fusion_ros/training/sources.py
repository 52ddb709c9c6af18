"""Where batches come from: simulated scenes or folders of captures, behind one interface.

A batch depends on its seed alone, so a run repeats whatever was drawn before, in whichever process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from lightning_fabric import Fabric

from depth_fusion_ros.training.captures import CaptureFolder, capture_batch, split_names
from depth_fusion_ros.training.config import DataSection, TrainingConfig, ValidationSection
from depth_fusion_ros.training.datasets import (
    SceneCache,
    SceneCacheConfig,
    TrainingBatch,
    make_batch,
)
from depth_fusion_ros.training.dcdp import DcdpFolder
from depth_fusion_ros.training.folders import PlainFolder
from depth_fusion_ros.training.google_dual_pixel import GoogleDualPixelFolder
from depth_fusion_ros.training.rendered_source import RenderedSource, Report
from depth_fusion_ros.training.stand_in_priors import draw_stand_ins
from depth_fusion_ros.training.sweep_data import SweepCache, SweepCacheConfig
from depth_fusion_ros.training.sweep_exposure import SweepBatch, make_sweep_batch

HELD_OUT_BATCH = 16
HELD_OUT_SLICES = 5
Batch: TypeAlias = TrainingBatch | SweepBatch


class BatchSource(Protocol):
    """A source of training batches and of held-out ones."""

    def prepare(self, fabric: Fabric, report: Report) -> None:
        """Make ready what is drawn from; called once by every process of a run."""
        ...

    def batch(self, count: int, seed: int, unknown_lens_share: float) -> Batch:
        """`count` training samples, drawn, cropped and exposed by the seed alone."""
        ...

    def held_out(self) -> Iterator[Batch]:
        """The held-out samples, the same at every call, with known lenses known."""
        ...


class SimulatedSource(RenderedSource[SceneCache]):
    """Rendered scenes (`datasets.SceneCache`), exposed anew for every batch."""

    def __init__(self, data: DataSection, held_out: SceneCacheConfig, cache_root: Path,
                 device: str) -> None:
        super().__init__(lambda: (SceneCache(held_out, cache_root),
                                  SceneCache(scene_cache_config(data), cache_root)), device)

    def batch(self, count: int, seed: int, unknown_lens_share: float) -> TrainingBatch:
        """`count` scenes, no scene twice while there are enough, on random sensors."""
        generator = torch.Generator().manual_seed(seed)
        cache = self._training_cache
        indices = torch.randperm(cache.config.scenes, generator=generator)[:count]
        return make_batch(cache, indices.sort().values, generator, device=self._device,
                          unknown_lens_share=unknown_lens_share)

    def held_out(self) -> Iterator[TrainingBatch]:
        """Every held-out scene once."""
        cache = self._held_out_cache
        for start in range(0, cache.config.scenes, HELD_OUT_BATCH):
            generator = torch.Generator().manual_seed(start)
            yield make_batch(cache, torch.arange(start, start + HELD_OUT_BATCH), generator,
                             device=self._device, unknown_lens_share=0.0)


class SweepSource(RenderedSource[SweepCache]):
    """Rendered focus sweeps (`sweep_data.SweepCache`), exposed anew for every batch."""

    def __init__(self, data: DataSection, validation: ValidationSection, cache_root: Path,
                 device: str) -> None:
        super().__init__(lambda: (held_out_sweep_cache(data, validation, cache_root),
                                  SweepCache(sweep_cache_config(data), cache_root)), device)
        self._stand_in_share = data.stand_in_prior_share

    def batch(self, count: int, seed: int, unknown_lens_share: float) -> SweepBatch:
        """`count` scenes with as many slices as the seed draws.

        Some hide their lens, some have a stand-in for a strong prior.
        """
        generator = torch.Generator().manual_seed(seed)
        cache = self._training_cache
        indices = torch.randperm(cache.config.scenes, generator=generator)[:count]
        batch = make_sweep_batch(cache, indices.sort().values, generator,
                                 unknown_lens_share=unknown_lens_share, device=self._device)
        if self._stand_in_share == 0:
            return batch
        stand_in = draw_stand_ins(batch.inverse_depth_diopters.cpu(), batch.valid.cpu(),
                                  self._stand_in_share, generator)
        return replace(batch, stand_in=stand_in.to(self._device))

    def held_out(self) -> Iterator[SweepBatch]:
        """Every held-out scene once, with five slices."""
        cache = self._held_out_cache
        for start in range(0, cache.config.scenes, HELD_OUT_BATCH):
            generator = torch.Generator().manual_seed(start)
            yield make_sweep_batch(cache, torch.arange(start, start + HELD_OUT_BATCH), generator,
                                   device=self._device, slices=HELD_OUT_SLICES)


class CaptureSource:
    """A folder of captures, cropped and flipped anew for every batch."""

    def __init__(self, data: DataSection, folder: CaptureFolder, device: str, *,
                 need_views: bool, need_lens: bool) -> None:
        self._folder, self._device = folder, device
        self._size = (data.width_px, data.height_px)
        self._need_views, self._need_lens = need_views, need_lens
        self.names, self.held_out_names = split_names(folder.names, data.held_out_share)

    def prepare(self, fabric: Fabric, report: Report = lambda done, total, text: None) -> None:
        """See that the first capture fits, so that a wrong folder is refused at once.

        Raises:
            DataError: it does not.
        """
        self._load(self.names[:1], None, 0.0)

    def batch(self, count: int, seed: int, unknown_lens_share: float) -> TrainingBatch:
        """`count` captures, no capture twice while there are enough."""
        generator = torch.Generator().manual_seed(seed)
        order: list[int] = []
        while len(order) < count:
            order += torch.randperm(len(self.names), generator=generator).tolist()
        return self._load([self.names[i] for i in order[:count]], generator, unknown_lens_share)

    def held_out(self) -> Iterator[TrainingBatch]:
        """Centre crops of the held-out captures; none where none are held out."""
        for start in range(0, len(self.held_out_names), HELD_OUT_BATCH):
            yield self._load(self.held_out_names[start:start + HELD_OUT_BATCH], None, 0.0)

    def _load(self, names: list[str], generator: torch.Generator | None,
              unknown_lens_share: float) -> TrainingBatch:
        return capture_batch(
            self._folder, names, *self._size, generator, need_views=self._need_views,
            need_lens=self._need_lens, unknown_lens_share=unknown_lens_share,
            device=self._device)


class MixedSource:
    """Several sources; a whole part of a batch comes from one, drawn in proportion to weights."""

    def __init__(self, sources: list[BatchSource], weights: list[float]) -> None:
        self.sources, self._weights = sources, torch.tensor(weights)

    def prepare(self, fabric: Fabric, report: Report = lambda done, total, text: None) -> None:
        """Prepare every source."""
        for source in self.sources:
            source.prepare(fabric, report)

    def batch(self, count: int, seed: int, unknown_lens_share: float) -> Batch:
        """A batch of the source that the seed draws."""
        index = 0
        if len(self.sources) > 1:
            generator = torch.Generator().manual_seed(seed + 1)
            index = int(torch.multinomial(self._weights, 1, generator=generator))
        return self.sources[index].batch(count, seed, unknown_lens_share)

    def held_out(self) -> Iterator[Batch]:
        """Of the first source: what the curve is measured on."""
        return self.sources[0].held_out()


def scene_cache_config(data: DataSection) -> SceneCacheConfig:
    """What is rendered for training."""
    return SceneCacheConfig(data.scenes, data.width_px, data.height_px, data.aperture_samples,
                            data.seed)


def sweep_cache_config(data: DataSection) -> SweepCacheConfig:
    """What is rendered for training on focus sweeps."""
    return SweepCacheConfig(data.scenes, data.width_px, data.height_px, data.slices,
                            data.aperture_samples, data.seed)


def held_out_sweep_cache(data: DataSection, validation: ValidationSection, cache_root: Path
                         ) -> SweepCache:
    """Focus sweeps that are never trained on; nothing is rendered yet."""
    return SweepCache(replace(sweep_cache_config(data), scenes=validation.scenes,
                              seed=validation.seed), cache_root)


def make_source(config: TrainingConfig, cache_root: Path, device: str, *, need_views: bool
                ) -> MixedSource:
    """Build the sources of a configuration; nothing is rendered yet.

    Args:
        config: of one stage. cache_root: folder for rendered scenes.
        device: where scenes are rendered and batches end.
        need_views: False for the stage that looks at RGB alone.

    Raises:
        DataError: a folder of captures is not there or not as its layout says.
    """
    def one(data: DataSection) -> BatchSource:
        if data.kind == "simulated":
            held_out = SceneCacheConfig(config.validation.scenes, data.width_px, data.height_px,
                                        data.aperture_samples, config.validation.seed)
            return SimulatedSource(data, held_out, cache_root, device)
        if data.kind == "simulated_sweep":
            return SweepSource(data, config.validation, cache_root, device)
        root = Path(data.path)
        folder: CaptureFolder
        if data.kind == "folder":
            folder = PlainFolder(root)
        elif data.kind == "dcdp":
            folder = DcdpFolder(root, parallax_axis=data.parallax_axis, swap_views=data.swap_views)
        else:
            folder = GoogleDualPixelFolder(root, parallax_axis=data.parallax_axis,
                                           swap_views=data.swap_views,
                                           min_confidence=data.min_confidence)
        return CaptureSource(data, folder, device, need_views=need_views,
                             need_lens=config.loss.kind == "metric")

    sections = (config.data, *config.more_data)
    return MixedSource([one(data) for data in sections], [data.weight for data in sections])

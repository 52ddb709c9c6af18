"""What sources of rendered scenes share: who renders, and that nobody reads before it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from lightning_fabric import Fabric

from depth_fusion_ros.training.render_cache import RenderCache

Report = Callable[[int, int, str], None]
"""(done, total, text) for whoever shows progress."""
CacheT = TypeVar("CacheT", bound=RenderCache)


class RenderedSource(Generic[CacheT]):
    """Opens caches and fills them.

    Args:
        make: opens the held-out cache and the one for training, in this order.
        device: where they are rendered.
    """

    def __init__(self, make: Callable[[], tuple[CacheT, CacheT]], device: str) -> None:
        self._make, self._device = make, device
        self._caches: tuple[CacheT, ...] = ()

    def prepare(self, fabric: Fabric, report: Report = lambda done, total, text: None) -> None:
        """Render the scenes that are missing; resumes.

        One process renders; where another machine does not see its folder, one process there
        renders as well.
        """
        for turn in (fabric.global_rank == 0, fabric.local_rank == 0, True):
            if turn and not self._caches:
                caches = self._make()
                for cache in caches:
                    total = cache.scenes
                    cache.render(self._device, lambda done, total=total: report(  # type: ignore[misc]
                        done, total, "rendering scenes"))
                self._caches = caches
            fabric.barrier()

    @property
    def _held_out_cache(self) -> CacheT:
        return self._caches[0]

    @property
    def _training_cache(self) -> CacheT:
        return self._caches[1]

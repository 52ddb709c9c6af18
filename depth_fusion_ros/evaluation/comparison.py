"""Two runs of `depth-fusion evaluate` on the same frames: what differs, and is it more than luck?

    paired = pair_frames(bags_of_a, bags_of_b)
    table = differences(paired)         # one `Difference` for each metric, B − A

A frame is paired with the one of the same bag (name and SHA-256 of its data) and stamp. Every
shared frame weighs the same. A metric is compared on the frames where both runs have it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth_fusion_ros.evaluation.cluster_bootstrap import FEWEST, RESAMPLES, cluster_bootstrap
from depth_fusion_ros.evaluation.metrics import RANGE_BINS_M, range_bin_key

LOWER, HIGHER, NEITHER = "lower", "higher", ""
MAIN = "abs_rel"
"""The metric that bags and frames are ranked by."""
SHORT = ("abs_rel", "median_abs_rel", "rmse_m", "rmse_log", "delta_1", "edge_abs_rel", "coverage",
         "bias_rel", "within_1_sigma", "within_2_sigma")
"""What a terminal shows; the page has all."""
COVERAGE_ALIKE = 0.01
_BINS = list(zip(RANGE_BINS_M, (*RANGE_BINS_M[1:], math.inf)))
METRICS: dict[str, tuple[str, str]] = {
    "abs_rel": ("AbsRel", LOWER), "median_abs_rel": ("median AbsRel", LOWER),
    "rmse_m": ("RMSE [m]", LOWER), "mae_m": ("mean |error| [m]", LOWER),
    "mae_diopters": ("mean |error| [D]", LOWER), "rmse_log": ("RMSE log", LOWER),
    "silog": ("SILog", LOWER), "delta_1": ("δ<1.25", HIGHER), "delta_2": ("δ<1.25²", HIGHER),
    "delta_3": ("δ<1.25³", HIGHER), "edge_abs_rel": ("AbsRel at edges", LOWER),
    "edge_mae_m": ("|error| at edges [m]", LOWER), "coverage": ("coverage", HIGHER),
    "bias_rel": ("bias, relative", NEITHER), "bias_m": ("bias [m]", NEITHER),
    "within_1_sigma": ("errors < 1σ", NEITHER), "within_2_sigma": ("errors < 2σ", NEITHER),
    "median_sigma_ratio": ("median σ/Z", NEITHER),
    **{range_bin_key(low, high): (
        f"AbsRel {low:g}–{high:g} m" if math.isfinite(high) else f"AbsRel > {low:g} m", LOWER)
       for low, high in _BINS}}
"""Key of `depth_metrics` → its name, and which way is better. Neither: a bias is best at 0, a share
within σ at that of a Gaussian."""


@dataclass(frozen=True)
class Pair:
    """One frame in both runs: `metrics` of it in A and in B, NaN where undefined."""

    bag: str
    stamp_ns: int
    a: Mapping[str, float]
    b: Mapping[str, float]

    def difference(self, key: str = MAIN) -> float:
        """B − A; NaN where one has no value."""
        return self.b.get(key, math.nan) - self.a.get(key, math.nan)


@dataclass(frozen=True)
class Paired:
    """The shared frames, by bag and stamp, and what was left out.

    Attributes:
        only_a, only_b: bag → number of frames that the other run does not have.
        changed: bags of one name whose data differ; all their frames are left out.
        renamed: name in A → name in B of bags with the same data; left out as well.
    """

    pairs: tuple[Pair, ...]
    only_a: Mapping[str, int]
    only_b: Mapping[str, int]
    changed: tuple[str, ...]
    renamed: Mapping[str, str]

    @property
    def bags(self) -> tuple[str, ...]:
        """Names of the bags that have shared frames."""
        return tuple(dict.fromkeys(pair.bag for pair in self.pairs))


@dataclass(frozen=True)
class Difference:
    """One metric over the frames where both runs have it.

    Attributes:
        key, name: as in `METRICS`. a, b: means. difference: mean of B − A. low, high: its interval
            at 95 %; NaN with fewer than two units.
        frames, bags: where both have it. units: independent draws (bags, or frames of one bag).
        verdict: better, worse (B than A), higher, lower, unclear, equal, too_few or none.
    """

    key: str
    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    frames: int
    bags: int
    units: int
    verdict: str


VERDICTS = {
    "better": "clear: B is better", "worse": "clear: B is worse",
    "higher": "clear: B is higher", "lower": "clear: B is lower",
    "unclear": "not clear: the interval holds 0", "equal": "the same in every frame",
    "too_few": f"not said: in fewer than {FEWEST} bags", "none": "no frame has it"}


def pair_frames(a: Iterable[Mapping[str, Any]], b: Iterable[Mapping[str, Any]]) -> Paired:
    """Pair the frames of two runs.

    Args:
        a, b: bags as in bags/NAME.json of `depth-fusion evaluate`: name, sha256, rows (stamp_ns,
            metrics), NaN where null.
    """
    left, right = ({str(bag["name"]): bag for bag in bags} for bags in (a, b))
    changed = tuple(sorted(name for name in left.keys() & right.keys()
                           if left[name]["sha256"] != right[name]["sha256"]))
    names_in_b = {right[name]["sha256"]: name for name in right if name not in left}
    renamed = {name: names_in_b[left[name]["sha256"]] for name in sorted(left)
               if name not in right and left[name]["sha256"] in names_in_b}
    pairs: list[Pair] = []
    only_a: dict[str, int] = {}
    only_b: dict[str, int] = {}
    for name in sorted(left.keys() | right.keys()):
        first, second = (dict(_frames(bags[name])) if name in bags else {}
                         for bags in (left, right))
        shared = sorted(first.keys() & second.keys()) if name not in changed else []
        pairs += [Pair(name, stamp[0], first[stamp], second[stamp]) for stamp in shared]
        for count, frames in ((only_a, first), (only_b, second)):
            if len(frames) > len(shared):
                count[name] = len(frames) - len(shared)
    return Paired(tuple(pairs), only_a, only_b, changed, renamed)


def _frames(bag: Mapping[str, Any]) -> Iterator[tuple[tuple[int, int], Mapping[str, float]]]:
    """(stamp, how often it came before) → metrics: stamps of cheap drivers repeat."""
    seen: Counter[int] = Counter()
    for row in bag["rows"]:
        stamp = int(row["stamp_ns"])
        yield (stamp, seen[stamp]), row["metrics"]
        seen[stamp] += 1


def differences(paired: Paired, *, seed: int = 0, resamples: int = RESAMPLES
                ) -> tuple[list[Difference], str]:
    """Compare every metric that a frame has, in the order of `METRICS`.

    Returns:
        the differences, and over what the intervals are: "bags", or "frames" of one bag.

    Raises:
        ValueError: there are no pairs.
    """
    if not paired.pairs:
        raise ValueError("no frame is in both runs: nothing to compare")
    present = {key for pair in paired.pairs for key in (*pair.a, *pair.b)}
    keys = [key for key in METRICS if key in present] + sorted(present - METRICS.keys())
    first, second = (np.array([[side.get(key, math.nan) for key in keys] for side in sides],
                              np.float64)
                     for sides in ([pair.a for pair in paired.pairs],
                                   [pair.b for pair in paired.pairs]))
    number = {bag: index for index, bag in enumerate(paired.bags)}
    bags = np.array([number[pair.bag] for pair in paired.pairs])
    found = cluster_bootstrap(second - first, bags, seed=seed, resamples=resamples)
    table = []
    for index, key in enumerate(keys):
        used = np.isfinite(second[:, index] - first[:, index])
        name, better = METRICS.get(key, (key, NEITHER))
        delta = second[used, index] - first[used, index]
        low, high = float(found.low[index]), float(found.high[index])
        table.append(Difference(
            key, name, _mean(first[used, index]), _mean(second[used, index]), _mean(delta), low,
            high, int(used.sum()), int(np.unique(bags[used]).size), int(found.units[index]),
            _verdict(delta, low, high, int(found.units[index]), better)))
    return table, found.over


def _verdict(delta: NDArray[np.float64], low: float, high: float, units: int, better: str) -> str:
    if not delta.size:
        return "none"
    if not delta.any():
        return "equal"
    if units < FEWEST:
        return "too_few"
    if low <= 0.0 <= high:
        return "unclear"
    if better == NEITHER:
        return "higher" if low > 0.0 else "lower"
    return "better" if (low > 0.0) == (better == HIGHER) else "worse"


def by_bag(paired: Paired, key: str = MAIN) -> list[dict[str, Any]]:
    """Means of each bag over the frames where both runs have a metric; bags without are left out.

    Returns:
        rows of bag, frames, a, b, difference (B − A), by name.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in paired.pairs:
        if math.isfinite(pair.difference(key)):
            groups.setdefault(pair.bag, []).append(pair)
    return [{"bag": bag, "frames": len(pairs), "a": _mean([pair.a[key] for pair in pairs]),
             "b": _mean([pair.b[key] for pair in pairs]),
             "difference": _mean([pair.difference(key) for pair in pairs])}
            for bag, pairs in groups.items()]


def by_frame(paired: Paired, key: str = MAIN) -> list[dict[str, Any]]:
    """The frames where both runs have a metric: bag, stamp_ns, a, b, difference."""
    return [{"bag": pair.bag, "stamp_ns": pair.stamp_ns, "a": pair.a[key], "b": pair.b[key],
             "difference": pair.difference(key)}
            for pair in paired.pairs if math.isfinite(pair.difference(key))]


def most_different(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Up to `count` rows where B − A is largest either way: B worst first, then B best first.

    Half of them from each end where both have enough; rows without a difference are never shown.
    """
    order = sorted(rows, key=lambda row: float(row["difference"]))
    better = [row for row in order if row["difference"] < 0.0]
    worse = [row for row in reversed(order) if row["difference"] > 0.0]
    of_worse = min(len(worse), max(count - count // 2, count - len(better)))
    of_better = min(len(better), count - of_worse)
    return worse[:of_worse] + better[:of_better]


def notes(paired: Paired, table: Sequence[Difference], over: str) -> list[str]:
    """What a reader must know before believing the table, as sentences."""
    said = []
    if over == "frames":
        said.append("One bag only: the intervals are over its frames as if they were independent, "
                    "which frames of one recording are not; they are too narrow and say nothing "
                    "of other scenes.")
    elif len(paired.bags) < FEWEST:
        said.append(f"{len(paired.bags)} bags only: with fewer than {FEWEST} all may differ the "
                    "same way by luck, so no difference is called clear.")
    if paired.changed:
        said.append(f"Left out, as their data differ between the runs: {_names(paired.changed)}.")
    if paired.renamed:
        said.append("Left out, as the runs name them differently: " + _names(
            [f"{a} (A) = {b} (B)" for a, b in paired.renamed.items()]) + ".")
    for side, left in (("A", paired.only_a), ("B", paired.only_b)):
        if left:
            said.append(f"Left out: {_count(sum(left.values()), 'frame')} of "
                        f"{_count(len(left), 'bag')}, scored only in {side}.")
    rows = {row.key: row for row in table}
    if MAIN in rows and rows[MAIN].frames < len(paired.pairs):
        said.append(f"AbsRel is compared on {rows[MAIN].frames} of {len(paired.pairs)} shared "
                    "frames: in the others one run has no depth where there is truth.")
    cover = rows.get("coverage")
    if cover is not None and abs(cover.difference) >= COVERAGE_ALIKE:
        said.append(f"The runs answer different pixels (coverage {cover.a:.3f} and {cover.b:.3f}): "
                    "errors count only what a run answers, so the one that answers less may look "
                    "better than it is.")
    return said


def _names(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else math.nan

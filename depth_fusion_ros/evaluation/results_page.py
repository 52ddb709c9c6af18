"""Keep the tables of docs/results.md equal to the measured results beside it.

    python -m depth_fusion_ros.evaluation.results_page --take runs/benchmark/benchmark.json NAME
    python -m depth_fusion_ros.evaluation.results_page --write

`--take` keeps the means of a `depth-fusion benchmark` (or `benchmark-sweeps`, or `study`) as
docs/results/NAME.json; `--write` puts every table of the page between its markers
``<!-- results NAME SET -->`` and ``<!-- end -->``. Sweeps get a section of their own at the end of
the page when they are first taken; move it where it belongs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depth_fusion_ros.evaluation.samples import LENS_GROUPS

PAGE = Path("docs/results.md")
FOLDER = Path("docs/results")
SWEEPS = "sweeps"
KINDS = ("simulated", "raytraced", "real", SWEEPS)
SECTIONS = {SWEEPS: "## Focus sweeps (ray-traced; no real sweep with truth exists)"}
"""Headings of the kinds that `--take` gives a section to."""
COLUMNS = {
    "abs_rel": "AbsRel", "abs_rel_0.6_to_2_m": "0.6–2 m", "textured_abs_rel": "textured",
    "edge_abs_rel": "at edges", "delta_1": "δ<1.25",
    "one_minus_spearman": "1−\\|ρ_s\\|", "aiwe_1": "AIWE(1)",
    "aiwe_2": "AIWE(2)", "smooth_textured_bound_distance": "× bound", "within_1_sigma": "<1σ",
    "within_2_sigma": "<2σ"}
SWEEP_COLUMNS = {
    "abs_rel": "AbsRel", "textured_abs_rel": "textured", "edge_abs_rel": "at edges",
    "rmse_m": "RMSE m", "rmse_log": "RMSE ln", "delta_1": "δ<1.25",
    "one_minus_spearman": "1−\\|ρ_s\\|", "within_1_sigma": "<1σ", "within_2_sigma": "<2σ",
    "seconds": "s"}
FOUR_DIGITS = ("aiwe_1", "aiwe_2", "one_minus_spearman")
_MARKER = re.compile(r"(<!-- results (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def condense(results: Mapping[str, Any]) -> dict[str, Any]:
    """Means of a benchmark.json without its images: what a page needs and a repository keeps."""
    kept: dict[str, Any] = {key: results[key] for key in ("methods", "record") if key in results}
    if "study" in results:
        return dict(results)
    for kind in KINDS:
        if kind not in results:
            continue
        kept[kind] = {}
        for name, groups in results[kind].items():
            if name == "calibration":
                kept[kind][name] = groups
                continue
            kept[kind][name] = {
                group: {method: {"count": row["count"], "mean": {
                    column: row["mean"].get(column) for column in columns_of(kind)}}
                    for method, row in groups[group].items()}
                for group in (shown_groups(groups) if kind == SWEEPS else groups)}
    return kept


def columns_of(kind: str) -> dict[str, str]:
    """Metrics that the table of one kind of captures shows, and their headings."""
    return SWEEP_COLUMNS if kind == SWEEPS else COLUMNS


def shown_groups(groups: Mapping[str, Any]) -> list[str]:
    """Groups of lenses that the tables of sweeps show: all, and each kind where there are two."""
    kinds = [group for group in LENS_GROUPS if group in groups]
    return ["all", *(kinds if len(kinds) > 1 else [])]


def table(results: Mapping[str, Any], kind: str) -> str:
    """Markdown table of one kind of captures, with the line that says how it was measured.

    Raises:
        KeyError: the results have no captures of that kind.
    """
    if "study" in results:
        return _study_table(results, kind)
    columns = columns_of(kind)
    lines = ["| set | lenses | method | " + " | ".join(columns.values()) + " |",
             "|---" * (3 + len(columns)) + "|"]
    for name, groups in results[kind].items():
        if name == "calibration":
            continue
        for group, methods in groups.items():
            for method, row in methods.items():
                cells = [cell(c, row["mean"].get(c)) for c in columns]
                lines.append(f"| {name} | {group} ({row['count']}) | {method} | "
                             + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + _provenance(results["record"]) + "\n"


def _study_table(results: Mapping[str, Any], kind: str) -> str:
    """Rows of a study; spread over seeds in brackets where there are several."""
    shown = ("one_minus_spearman", "aiwe_1", "aiwe_2", "abs_rel", "delta_1")
    lines = ["| network | seeds | parameters | minutes | "
             + " | ".join(COLUMNS[c] for c in shown) + " | ratio |",
             "|---" * (5 + len(shown)) + "|"]
    for label, row in results["study"][kind].items():
        several = len(row["seeds"]) > 1
        cells = [cell(c, row["mean"][c]) + (f" ({cell(c, row['spread'][c])})" if several else "")
                 for c in shown]
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        if several and row["ratio"] is not None:
            ratio += " (" + ", ".join(f"{r:.2f}" for r in row["ratios"].values()) + ")"
        minutes = ", ".join(f"{m:.1f}" for m in row["minutes"])
        lines.append(f"| {label} | {', '.join(map(str, row['seeds']))} | "
                     f"{row['parameters'] / 1e6:.2f} M | {minutes} | " + " | ".join(cells)
                     + f" | {ratio} |")
    return "\n".join(lines) + "\n\n" + _provenance(results["record"]) + "\n"


def cell(column: str, value: float | None) -> str:
    """A metric as the tables show it; – where there is none."""
    if value is None:
        return "–"
    return f"{value:.4f}" if column in FOUR_DIGITS else f"{value:.3f}"


def _provenance(record: Mapping[str, Any]) -> str:
    hardware, versions = record["hardware"], record["versions"]
    seeds = ", ".join(f"{what} {seed}" for what, seed in record["seeds"].items())
    return (f"`{record['command']}`; seeds: {seeds}; {hardware['cores']} cores of "
            f"{hardware['cpu']}, {hardware['threads']} threads; torch {versions['torch']}; "
            f"{record['wall_time_s'] / 60:.1f} min.")


def render(page: str, folder: Path) -> str:
    """The page with every marked table made anew from `folder`.

    Raises:
        FileNotFoundError: a marker names results that are not there.
    """
    def fill(match: re.Match[str]) -> str:
        path = folder / f"{match[2]}.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: named by a marker of the page; take it with --take")
        return f"{match[1]}{table(json.loads(path.read_text()), match[3])}{match[4]}"

    return _MARKER.sub(fill, page)


def with_section(page: str, name: str, results: Mapping[str, Any]) -> str:
    """The page with a section and empty markers for every kind of `SECTIONS` it does not show."""
    for kind, heading in SECTIONS.items():
        marker = f"<!-- results {name} {kind} -->\n"
        if kind in results and marker not in page:
            page = f"{page.rstrip()}\n\n{heading}\n\n{marker}<!-- end -->\n"
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0, or 1 where the page is not up to date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--take", nargs=2, metavar=("BENCHMARK_JSON", "NAME"))
    parser.add_argument("--write", action="store_true", help="write the page")
    options = parser.parse_args(arguments)
    if options.take:
        FOLDER.mkdir(parents=True, exist_ok=True)
        kept = condense(json.loads(Path(options.take[0]).read_text()))
        path = FOLDER / f"{options.take[1]}.json"
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        page = PAGE.read_text()
        grown = with_section(page, options.take[1], kept)
        if grown != page:
            PAGE.write_text(grown)
        return 0
    page = PAGE.read_text()
    made = render(page, FOLDER)
    if options.write:
        PAGE.write_text(made)
    return 0 if options.write or made == page else 1


if __name__ == "__main__":
    raise SystemExit(main())

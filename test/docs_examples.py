"""Worked examples of docs/*.md: their commands, and whether what a page shows is what is printed.

    for step in steps("compare.md"):              # `$` lines and, below each, what it printed
        output = run(step)
        assert missing_lines(step.shown, output) == []

The shell's part (loops, quotes, `\\` at line ends) is left to bash, with a function in place of
each program that hands its arguments back; the programs themselves run in this process.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROGRAMS = ("depth-fusion", "ros2", "python", "cat")
END = "\x1e"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"(?<![\w@.:/])[-+]?\d+(?:\.\d+)?(?![\w@:/])(?!\.\d)")
SECONDS = re.compile(r"\d+(?:\.\d+)? s\b")


@dataclass
class Step:
    """A command of a page, as it is typed, and the lines that the page shows below it."""

    typed: str
    shown: list[str] = field(default_factory=list)

    def commands(self) -> list[list[str]]:
        """What bash makes of it: programs with their arguments."""
        stubs = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\"; printf '{END}'; }}\n"
                        for name in PROGRAMS)
        told = subprocess.run(["bash", "-c", stubs + self.typed], capture_output=True, text=True)
        assert told.returncode == 0 and not told.stderr, f"{self.typed}: {told.stderr}"
        return [part.split("\0")[:-1] for part in told.stdout.split(END)[:-1]]


def section(page: str, heading: str = "A worked example") -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def steps(page: str, heading: str = "A worked example") -> list[Step]:
    """The `$` lines of a section's code blocks; `>` continues one."""
    found: list[Step] = []
    for language, block in FENCE.findall(section(page, heading)):
        if language:
            continue
        for number, line in enumerate(block.splitlines()):
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            elif line.startswith("> "):
                found[-1].typed += "\n" + line[2:]
            elif number and found:
                found[-1].shown.append(line)
    return found


def write_scripts(page: str, folder: Path) -> None:
    """Write the Python blocks that begin with their name, `# NAME.py`."""
    for language, block in FENCE.findall(section(page)):
        if language == "python":
            name = block.split("\n", 1)[0].removeprefix("# ")
            (folder / name).write_text(block, encoding="utf-8")


def missing_lines(shown: list[str], output: str) -> list[str]:
    """Lines of a page that are not in the output, in order; words must agree, figures nearly.

    `…` stands for anything; seconds are those of the machine; frames of tables do not count.
    """
    printed = [_plain(line) for line in output.splitlines()]
    missing, after = [], 0
    for line in shown:
        wanted = _plain(line)
        if not wanted or wanted == "…":
            continue
        place = next((i for i in range(after, len(printed)) if _alike(wanted, printed[i])), None)
        if place is None:
            missing.append(line)
        else:
            after = place + 1
    return missing


def _plain(line: str) -> str:
    return " ".join(re.sub(r"[─━┃│┏┓└┘┡┩╇┳┴┼├┤]", " ", SECONDS.sub("… s", line)).split())


def _alike(wanted: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(NUMBER.sub("#", part)) for part in wanted.split("…"))
    if not re.fullmatch(pattern, NUMBER.sub("#", printed)):
        return False
    if "…" in wanted and "… s" not in wanted and " … " not in wanted:
        return True
    pairs = zip(NUMBER.findall(wanted), NUMBER.findall(printed))
    return all(abs(float(a) - float(b)) <= 0.005 + 0.15 * abs(float(a)) for a, b in pairs)

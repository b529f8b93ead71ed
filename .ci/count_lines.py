"""Prints how many lines there are to read in each folder: a question for a review, not a gate."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def lines(path: Path) -> int:
    """Lines that are neither blank nor a comment."""
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in path.read_text().splitlines())


folders: dict[str, int] = {}
for top in ("tinygrad_rnn", "tests", "examples", "benchmarks", "docs"):
    for path in sorted((ROOT / top).rglob("*.py")):
        inner = path.relative_to(ROOT / top).parts[:-1]
        folder = f"{top}/{inner[0]}" if top == "tinygrad_rnn" and inner else top
        folders[folder] = folders.get(folder, 0) + lines(path)
for folder, count in folders.items():
    print(f"{count:6}  {folder}")
print(f"{folders['tinygrad_rnn/core'] + folders['tinygrad_rnn/ops']:6}  to understand autograd: core and ops")

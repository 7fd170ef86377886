"""How time and memory of our train step grow: with tokens of a row, vocabulary, contexts and layers.

    python -m benchmarks.scaling [--rows=2,4,8,16] [--words=…] [--contexts=…] [--layers=…] [--json=FILE]

From one base point, one axis at a time moves; every cell is a process of its own that warms up and then makes
`--steps` steps, of which the median counts; memory is the compiled step's temporaries. A row holds as many pairs as it
is given, so its length is their tokens.
The slope of an axis is that of log(value) over log(size), by least squares: 1 is linear, 2 the square. What does not
grow with the axis, such as the head while the layers multiply, pulls it below 1. Contexts share a question, so that
their tokens grow more slowly than their number: they have a slope along each.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.batches import TAIL, Lengths
from benchmarks.contenders import CONTENDERS, Worker
from benchmarks.jobs import write_job
from benchmarks.shapes import qwen2

PAIR, INSTRUCTION = Lengths(160, 60, 52), 32
"""Of every cell; `row_of` says how many tokens a pair has in the trie."""


class Cell(NamedTuple):
  """A point: pairs in the row, entries of the vocabulary, contexts, layers."""

  rows: int = 4
  words: int = 8192
  contexts: int = 4
  layers: int = 2


AXES = {"rows": (2, 4, 8, 16), "words": (2048, 8192, 32768), "contexts": (1, 2, 4, 8), "layers": (1, 2, 4, 8)}
MEASURES = {"rows": ("tokens",), "contexts": ("contexts", "tokens")}
"""By what the growth along an axis is told, where not by the axis itself."""


def main() -> None:
  args = arguments()
  lines, slopes, cells = [("axis", "size", "tokens", "s/step", "temporaries MB")], [], []
  for axis in AXES:
    found = [run_cell(Cell()._replace(**{axis: size}), args) for size in getattr(args, axis)]
    lines += [_line(axis, cell) for cell in found]
    slopes += [_slopes(axis, by, found) for by in MEASURES.get(axis, (axis,))]
    cells += [{"axis": axis} | cell for cell in found]
  print(report.align(lines))
  print(report.align([("slope along", "time", "memory"), *slopes]))
  if args.json:
    report.write(args.json, {"cells": cells, "slopes": slopes})


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  numbers = lambda text: tuple(int(part) for part in text.split(","))
  parser.add_argument("--rows", type=numbers, default=AXES["rows"], help="pairs in the row")
  parser.add_argument("--words", type=numbers, default=AXES["words"], help="entries of the vocabulary")
  parser.add_argument("--contexts", type=numbers, default=AXES["contexts"], help="K")
  parser.add_argument("--layers", type=numbers, default=AXES["layers"])
  parser.add_argument("--width", type=int, default=128, help="of the model")
  parser.add_argument("--steps", type=int, default=5, help="that are timed in each cell")
  parser.add_argument("--override", action="append", default=[], metavar="A.B=V", help="of our config")
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--json", metavar="FILE")
  return parser.parse_args()


def row_of(contexts: int) -> int:
  """Tokens of a pair whose question is shared and behind which each context has its instruction and tail."""
  return PAIR.question - TAIL + contexts * (INSTRUCTION + TAIL + PAIR.chosen + PAIR.rejected)


def run_cell(cell: Cell, args: argparse.Namespace) -> dict[str, Any]:
  """One point, in a process of its own."""
  width = args.width
  fields = qwen2(layers=cell.layers, width=width, heads=4, kv_heads=2, mlp_width=3 * width, words=cell.words)
  options = {"row_length": cell.rows * row_of(cell.contexts)}
  with tempfile.TemporaryDirectory() as folder:
    contexts = (INSTRUCTION,) * cell.contexts
    options |= {"overrides": args.override}
    lengths = [PAIR] * cell.rows
    job = write_job(Path(folder), fields, lengths, contexts=contexts, device=args.device, options=options)
    worker = Worker(CONTENDERS["ours"], job, cache=Path(), timeout=1800)
    steps = [worker.step() for _ in range(1 + args.steps)]
    worker.close()
  seconds = statistics.median(step["seconds"] for step in steps[1:])
  return cell._asdict() | {
    "tokens": worker.counts.tokens,
    "seconds": seconds,
    "temporaries": worker.counts.temporaries,
    "peak_bytes": steps[-1]["peak_bytes"],
  }


def slope(sizes: list[float], values: list[float]) -> float:
  """Exponent of the power law that fits best; NaN for a single size."""
  if len(sizes) < 2:
    return float("nan")
  return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _slopes(axis: str, by: str, cells: list[dict[str, Any]]) -> tuple[str, ...]:
  along = axis if by == axis else f"{axis}, by {by}"
  exponents = (slope([cell[by] for cell in cells], [cell[of] for cell in cells]) for of in ("seconds", "temporaries"))
  return along, *(f"{exponent:.2f}" for exponent in exponents)


def _line(axis: str, cell: dict[str, Any]) -> tuple[str, ...]:
  return axis, str(cell[axis]), str(cell["tokens"]), f"{cell['seconds']:.3f}", f"{cell['temporaries'] / 1e6:.0f}"


if __name__ == "__main__":
  main()

"""From the answers of the rounds to a table and a file."""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amopo_jax.provenance import commit, processor
from benchmarks.flops import Flops

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers")

HEAD = ("contender", "s/pair", "spread", "pairs/s", "tokens/s", "GFLOP/s", "% peak", "with recomp.", "% peak", "GB")


def rates(
  seconds: Sequence[float], flops: Flops, *, pairs: int, tokens: int, peak_bytes: int, peaks: Mapping[str, float]
) -> dict[str, Any]:
  """The figures of one contender.

  Args:
    seconds: of a step, one per round.
    flops: of a step.
    pairs: in the batch.
    tokens: of all its sequences, unshared and unpadded: the work that was asked for, the same for every contender.
    peak_bytes: of its process.
    peaks: FLOP/s of the matrix product, by library.
  """
  median, best = statistics.median(seconds), max(peaks.values(), default=float("nan"))
  return {
    "seconds": list(seconds),
    "seconds_per_pair": median / pairs,
    "spread": (max(seconds) - min(seconds)) / median,
    "pairs_per_second": pairs / median,
    "tokens_per_second": tokens / median,
    "model_flops": flops.model,
    "model_flops_per_second": flops.model / median,
    "share_of_peak": flops.model / median / best,
    "executed_flops_per_second": flops.executed / median,
    "executed_share_of_peak": flops.executed / median / best,
    "executed_share_of_peaks": {name: flops.executed / median / peak for name, peak in peaks.items()},
    "peak_bytes": peak_bytes,
  }


def ratios(answers: Mapping[str, Sequence[Mapping[str, float]]], of: str) -> dict[str, float]:
  """How many times as long as `of` each takes: the median over rounds of the ratio within a round."""
  if not answers.get(of):
    return {}
  pairs = {name: zip(theirs, answers[of], strict=False) for name, theirs in answers.items() if theirs}
  return {name: statistics.median(a["seconds"] / b["seconds"] for a, b in both) for name, both in pairs.items()}


def step_table(labels: Mapping[str, str], found: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]) -> str:
  """One line per contender; one that failed says why."""
  lines = [HEAD]
  for name, label in labels.items():
    if name in found:
      lines.append((label, *_cells(found[name])))
    elif name in failures:
      lines.append((label, "failed: " + failures[name]))
  return align(lines)


def align(lines: Sequence[Sequence[str]]) -> str:
  """Columns as wide as they need; the first to the left, the others to the right; a short line runs on."""
  full = [line for line in lines if len(line) == len(lines[0])]
  widths = [max(len(line[column]) for line in full) for column in range(len(lines[0]))]
  widths[0] = max(len(line[0]) for line in lines)
  put = lambda cell, column: cell.rjust(widths[column]) if column else cell.ljust(widths[0])
  text = lambda line: (
    "  ".join(put(c, i) for i, c in enumerate(line))
    if len(line) == len(widths)
    else "  ".join((line[0].ljust(widths[0]), *line[1:]))
  )
  return "\n".join(text(line) for line in lines)


def provenance() -> dict[str, Any]:
  """When, where, what and how: what a figure needs to be believed."""
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "commit": commit(),
    "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    "processor": processor(),
    "cores": os.cpu_count(),
    "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "python": platform.python_version(),
    "packages": {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)},
  }


def write(path: str, content: Mapping[str, Any]) -> None:
  """Writes the file of `--json`."""
  Path(path).write_text(json.dumps(provenance() | content, indent=1) + "\n")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
  return (
    f"{row['seconds_per_pair']:.3f}",
    f"{row['spread']:.0%}",
    f"{row['pairs_per_second']:.3f}",
    f"{row['tokens_per_second']:.0f}",
    f"{row['model_flops_per_second'] / 1e9:.0f}",
    f"{row['share_of_peak']:.0%}",
    f"{row['executed_flops_per_second'] / 1e9:.0f}",
    f"{row['executed_share_of_peak']:.0%}",
    f"{row['peak_bytes'] / 1e9:.2f}",
  )

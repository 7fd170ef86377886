"""From a shape and lengths to the files of a job: weights, batch and noise, the same for every contender."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.batches import CONTEXTS, Lengths, make_pairs
from benchmarks.contenders import ROOT, environment
from benchmarks.peers.pairs import save
from benchmarks.peers.serve import Job

DTYPE = {"cpu": "float32", "gpu": "bfloat16"}
LEARNING_RATE = 1e-5
"""High enough that the second loss shows whether the gradient was right."""


def write_job(
  folder: Path,
  fields: Mapping[str, Any],
  lengths: Sequence[Lengths],
  *,
  place: str = "after",
  contexts: Sequence[int] = CONTEXTS,
  device: str = "cpu",
  options: Mapping[str, Any],
) -> Job:
  """Draws the weights and the batch and writes both.

  Args:
    folder: exists, empty.
    fields: of config.json.
    lengths: of each pair.
    place: of the instruction.
    contexts: tokens of each context's instruction.
    device: cpu or gpu, which also says the type.
    options: for all contenders.
  """
  said = {"folder": str(folder), "fields": fields, "pairs": len(lengths), "contexts": len(contexts), "seed": 0}
  (folder / "materials.json").write_text(json.dumps(said))
  command = [sys.executable, "-m", "benchmarks.materials", str(folder / "materials.json")]
  subprocess.run(command, check=True, cwd=ROOT, env=environment("cpu"))
  noise = np.load(folder / "noise.npy")
  pairs = make_pairs(lengths, noise, place=place, words=fields["vocab_size"], seed=1, contexts=contexts)
  save(folder / "batch.npz", pairs)
  return Job(
    model=str(folder / "model"),
    batch=str(folder / "batch.npz"),
    device=device,
    dtype=DTYPE[device],
    learning_rate=LEARNING_RATE,
    beta=0.8,
    target_margin=2.0,
    options=dict(options),
  )

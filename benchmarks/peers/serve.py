"""The child's side of a contender: `python -m benchmarks.peers.NAME JOB.json`, then one line of JSON per turn.

    parent: "step"     child: {"seconds": …, "loss": …, "peak_bytes": …, …}
    parent: "" (end)   child exits

A contender is a module with `open_trainer(job) -> Trainer`; this file imports NumPy at most, so that it runs in the
environment of any peer. What a library prints goes to stderr; an exception ends the child and is its last line there.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.pairs import Pairs, load


class Job(NamedTuple):
  """What all contenders are given.

  Attributes:
    model: directory with config.json and model.safetensors.
    batch: file of `pairs.save`.
    device: cpu or gpu.
    dtype: float32 or bfloat16, of parameters and products.
    learning_rate: of AdamW; no decay, no clipping, no schedule.
    beta, target_margin: of the loss.
    options: what is said to this contender alone.
  """

  model: str
  batch: str
  device: str
  dtype: str
  learning_rate: float
  beta: float
  target_margin: float
  options: dict[str, Any]

  @property
  def pairs(self) -> Pairs:
    """The batch."""
    return load(Path(self.batch))


class Counts(NamedTuple):
  """What one step computes, for the analytic count of its operations.

  Attributes:
    tokens: that pass through the layers, padding included.
    head_tokens: that the vocabulary projection takes.
    attended: (query, key) pairs that the causal half, or the trie, makes visible; padding included.
    recomputed: parts of the forward pass that the backward pass computes again: "layers", "attention" (all of its
      forward pass), "scores" (those of a flash-like backward pass), "head".
    head_recomputed: share of the head's tokens that are computed again, where the head is.
    temporaries: bytes that the compiled step needs beside its arguments and results; 0 if the contender does not tell.
  """

  tokens: int
  head_tokens: int
  attended: int
  recomputed: tuple[str, ...] = ()
  head_recomputed: float = 1.0
  temporaries: int = 0


class Loss(NamedTuple):
  """The outcome of one step.

  Attributes:
    loss: before the update.
    mean_logps: length-averaged log-probability of each sequence, by pair, context and member; empty if the contender
      does not tell.
    grad_norm: length of the gradient of all parameters, of the first step alone; None if the contender does not tell.
  """

  loss: float
  mean_logps: tuple[float, ...] = ()
  grad_norm: float | None = None


class Trainer(NamedTuple):
  """One contender, ready.

  Attributes:
    step: one step, forward, backward and update, done when it returns.
    counts: of that step.
    peak_bytes: largest memory so far.
  """

  step: Callable[[], Loss]
  counts: Counts
  peak_bytes: Callable[[], int]


def padded(lengths: list[int], longest: int, head_tokens: int) -> Counts:
  """Counts of sequences that are all padded to one length."""
  return Counts(len(lengths) * longest, head_tokens, len(lengths) * triangle(longest))


def triangle(length: int) -> int:
  """Visible pairs of a causal sequence."""
  return length * (length + 1) // 2


def peak_resident() -> int:
  """Largest resident memory of this process, bytes; on Linux since its own start, not that of its parent."""
  status = Path("/proc/self/status")
  if status.exists():
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
  unit = 1 if sys.platform == "darwin" else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(open_trainer: Callable[[Job], Trainer]) -> None:
  """Answers the parent until it hangs up."""
  replies = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)  # what libraries print is not an answer
  job = Job(**json.loads(Path(sys.argv[1]).read_text()))
  trainer = open_trainer(job)
  replies.write(json.dumps({"counts": trainer.counts._asdict()}) + "\n")
  for line in sys.stdin:
    if line.strip() != "step":
      raise ValueError(f"serve: unknown request {line!r}")
    began = time.perf_counter()
    loss = trainer.step()
    seconds = time.perf_counter() - began
    if not math.isfinite(loss.loss):
      raise FloatingPointError(f"the loss is {loss.loss}")
    replies.write(json.dumps({"seconds": seconds, "peak_bytes": trainer.peak_bytes(), **loss._asdict()}) + "\n")

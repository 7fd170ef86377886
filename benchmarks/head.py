"""The moments head against full logits: time and peak memory of its value and gradient.

    python -m benchmarks.head [--lengths=512,2048] [--words=6400,32768,151936] [--width=896] [--json=FILE]

Each cell is a process of its own, one row of which every token is scored. "full" is what most code does: float32
logits of all positions, a log-softmax, the targets picked. Both give the same sums, which is checked before the
table; the gradient is that of the sum of the log-probabilities with respect to hidden states and weight.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import report
from benchmarks.contenders import ROOT, environment

HEADS = ("moments", "full")
TOLERANCE = 1e-4
"""Relative, of the gradients' norms in float32."""


def main() -> None:
  args = arguments()
  if args.cell:
    print(json.dumps(measure(args.head, *args.cell, width=args.width, chunk=args.chunk, steps=args.steps)))
    return
  cells = [(length, words) for words in args.words for length in args.lengths]
  found = {(head, *cell): run_apart(head, cell, args) for cell in cells for head in HEADS}
  lines = [("tokens", "words", "moments s", "full s", "moments MB", "full MB", "equal")]
  lines += [_line(cell, *(found[(head, *cell)] for head in HEADS)) for cell in cells]
  print(report.align(lines))
  if args.json:
    named = [{"head": head, "tokens": cell[0], "words": cell[1], **row} for (head, *cell), row in found.items()]
    report.write(args.json, {"cells": named, "width": args.width, "chunk": args.chunk})
  if unequal := [cell for cell in cells if not is_equal(*(found[(head, *cell)] for head in HEADS))]:
    sys.exit(f"not the same sums or gradients at {unequal}")


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  numbers = lambda text: [int(part) for part in text.split(",")]
  parser.add_argument("--lengths", type=numbers, default=[512, 2048], help="scored tokens")
  parser.add_argument("--words", type=numbers, default=[6400, 32768, 151936], help="entries of the vocabulary")
  parser.add_argument("--width", type=int, default=896, help="of the hidden states")
  parser.add_argument("--chunk", type=int, default=512, help="tokens that the moments head projects at a time")
  parser.add_argument("--steps", type=int, default=5, help="that are timed; the median counts")
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--json", metavar="FILE")
  parser.add_argument("--cell", type=numbers, help=argparse.SUPPRESS)
  parser.add_argument("--head", choices=HEADS, help=argparse.SUPPRESS)
  return parser.parse_args()


def run_apart(head: str, cell: tuple[int, int], args: argparse.Namespace) -> dict[str, float]:
  """One cell in a fresh process, whose peak is its own."""
  own = [f"--head={head}", f"--cell={cell[0]},{cell[1]}"]
  shared = [f"--{name}={getattr(args, name)}" for name in ("width", "chunk", "steps", "device")]
  call = [sys.executable, "-m", "benchmarks.head", *own, *shared]
  done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment(args.device))
  return json.loads(done.stdout)


def measure(head: str, length: int, words: int, *, width: int, chunk: int, steps: int) -> dict[str, float]:
  """Times value and gradient of one head in this process."""
  import jax
  import jax.numpy as jnp

  from amopo_jax import mesh as meshes
  from benchmarks.peers.ours import peak_bytes

  mesh = meshes.make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])
  dtype = jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
  keys = jax.random.split(jax.random.key(0), 3)
  hidden = jax.random.normal(keys[0], (1, length, width), dtype)
  weight = 0.02 * jax.random.normal(keys[1], (words, width), dtype)
  tokens = jax.random.randint(keys[2], (1, length), 0, words)
  summed = {"moments": partial(moments_sum, chunk), "full": full_sum}[head]
  gradient = meshes.jit_for(mesh, jax.value_and_grad(summed, argnums=(0, 1)))
  norms = lambda grads: [float(jnp.linalg.norm(grad.astype(jnp.float32))) for grad in grads]
  value, grads = gradient(hidden, weight, tokens)
  step = lambda: jax.block_until_ready(gradient(hidden, weight, tokens))
  seconds = statistics.median(_seconds(step) for _ in range(steps))
  peak = peak_bytes(jax.default_backend())
  d_hidden, d_weight = norms(grads)
  return {"seconds": seconds, "peak_bytes": peak, "value": float(value), "d_hidden": d_hidden, "d_weight": d_weight}


def moments_sum(chunk: int, hidden: Any, weight: Any, tokens: Any) -> Any:
  """The project's head, in the blocks of this kind of device."""
  import jax
  import jax.numpy as jnp

  from amopo_jax.models.head import BLOCK_LOGITS, GPU_BLOCK_LOGITS, moments_head
  from amopo_jax.types import PackedRows

  place = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
  rows = PackedRows(
    tokens, place, jnp.full_like(place, tokens.shape[1]), jnp.maximum(place - 1, 0), jnp.zeros_like(place)
  )
  block = GPU_BLOCK_LOGITS if jax.default_backend() == "gpu" else BLOCK_LOGITS
  return moments_head(hidden, weight, rows, 1, chunk=chunk, block_logits=block).sum_logp.sum()


def full_sum(hidden: Any, weight: Any, tokens: Any) -> Any:
  """Logits of all positions at once."""
  import jax
  import jax.numpy as jnp

  states = jnp.concatenate([hidden[:, :1], hidden[:, :-1]], axis=1)
  logits = jnp.einsum("rsd,vd->rsv", states, weight, preferred_element_type=jnp.float32)
  return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1).sum()


def is_equal(one: dict[str, float], other: dict[str, float]) -> bool:
  """Whether the sums and the gradients' norms agree."""
  return all(abs(one[name] - other[name]) <= TOLERANCE * abs(other[name]) for name in ("value", "d_hidden", "d_weight"))


def _line(cell: tuple[int, int], ours: dict[str, float], full: dict[str, float]) -> tuple[str, ...]:
  seconds = (f"{row['seconds']:.3f}" for row in (ours, full))
  memory = (f"{row['peak_bytes'] / 1e6:.0f}" for row in (ours, full))
  return str(cell[0]), str(cell[1]), *seconds, *memory, "yes" if is_equal(ours, full) else "NO"


def _seconds(work: Callable[[], Any]) -> float:
  began = time.perf_counter()
  work()
  return time.perf_counter() - began


if __name__ == "__main__":
  main()

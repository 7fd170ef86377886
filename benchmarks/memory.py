"""Peak memory of the loss and its gradient against row length and vocabulary: a sum of the two, not their product.

    python -m benchmarks.memory [--json=FILE] [--lengths=1024,4096] [--vocabularies=16384,131072]

Each cell is a process of its own that computes one gradient of a two-layer decoder on one packed row, every token of
it scored; it reports the compiler's temporaries and the process's peak resident memory. The interaction of a grid,

    peak(long, large) - peak(long, small) - peak(short, large) + peak(short, small),

is what grows with row length × vocabulary; float32 logits of the whole row would make it (S' - S)(V' - V) × 4 bytes,
and several times that with softmax and gradient.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks import report


def measure(length: int, vocabulary: int) -> dict[str, float]:
  """Compiles and runs one gradient in this process."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from amopo_jax.mesh import jit_for, make_mesh
  from amopo_jax.models import ModelConfig, init_params, make_score_fn
  from amopo_jax.models.attention import choose_attention
  from amopo_jax.types import PackedRows

  config = ModelConfig(
    architecture="Qwen2ForCausalLM",
    vocab_size=vocabulary,
    width=64,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=32,
    mlp_width=128,
    tie_embeddings=True,
  )
  mesh = make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])
  platform = jax.devices()[0].platform
  score_fn = make_score_fn(
    config,
    num_contexts=1,
    compute_dtype=jnp.float32,
    remat="full",
    attention_chunk=256,
    head_chunk=1024,
    attend=choose_attention("auto", config, platform=platform, tensor=1, compute_dtype=jnp.float32).attend,
  )
  place = np.arange(length, dtype=np.int32)[None]
  rows = PackedRows(
    tokens=jnp.asarray(place % vocabulary),
    positions=jnp.asarray(place),
    subtree_end=jnp.full((1, length), length, jnp.int32),
    parent=jnp.asarray(np.maximum(place - 1, 0)),
    slot=jnp.asarray(place % 2),
  )
  params = init_params(config, jax.random.key(0), jnp.float32)
  gradient = jit_for(mesh, jax.grad(lambda p: jnp.sum(score_fn(p, rows, 1).sum_logp)))
  compiled = gradient.lower(params).compile()
  jax.block_until_ready(compiled(params))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return {"temporaries": compiled.memory_analysis().temp_size_in_bytes / 2**20, "peak": peak / 2**20}


def measure_apart(length: int, vocabulary: int) -> dict[str, float]:
  """The same in a fresh process, whose peak is its own."""
  call = [sys.executable, "-m", "benchmarks.memory", f"--cell={length},{vocabulary}"]
  root = Path(__file__).parent.parent
  return json.loads(subprocess.run(call, capture_output=True, text=True, check=True, cwd=root).stdout)


def interaction(cells: dict[tuple[int, int], dict[str, float]], name: str) -> float:
  """The part of a grid's corners that is no sum of a function of length and one of vocabulary, MiB."""
  lengths, vocabularies = sorted({s for s, _ in cells}), sorted({v for _, v in cells})
  corner = lambda s, v: cells[(lengths[s], vocabularies[v])][name]
  return corner(-1, -1) - corner(-1, 0) - corner(0, -1) + corner(0, 0)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  numbers = lambda text: [int(part) for part in text.split(",")]
  parser.add_argument("--lengths", type=numbers, default=[1024, 2048, 4096], help="tokens of the row")
  parser.add_argument("--vocabularies", type=numbers, default=[16384, 65536, 131072], help="entries")
  parser.add_argument("--json", metavar="FILE")
  parser.add_argument("--cell", type=numbers, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.cell:
    print(json.dumps(measure(*args.cell)))
    return
  cells = {(s, v): measure_apart(s, v) for s in args.lengths for v in args.vocabularies}
  logits = (max(args.lengths) - min(args.lengths)) * (max(args.vocabularies) - min(args.vocabularies)) * 4 / 2**20
  result = {name: interaction(cells, name) for name in ("temporaries", "peak")} | {"logits_of_the_row": logits}
  if args.json:
    table = [{"length": s, "vocabulary": v, **found} for (s, v), found in cells.items()]
    report.write(args.json, {"cells": table, "interaction": result})
  print(f"{'row length':>10} {'vocabulary':>10} {'temporaries MiB':>16} {'peak RSS MiB':>14}")
  for (s, v), found in cells.items():
    print(f"{s:>10} {v:>10} {found['temporaries']:>16.1f} {found['peak']:>14.1f}")
  print(
    f"interaction: temporaries {result['temporaries']:+.1f} MiB, peak {result['peak']:+.1f} MiB; "
    f"one array of logits would add {logits:.0f} MiB"
  )


if __name__ == "__main__":
  main()

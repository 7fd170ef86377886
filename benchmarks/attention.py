"""Attention against the row length: time, memory, and how much of the square a backend looks at.

    python -m benchmarks.attention [--json=FILE] [--lengths=4096,8192,16384] [--place=before] [--backends=xla]
    python -m benchmarks.attention --data=train.jsonl --format=preference --tokenizer=DIR

Rows are filled with pairs in four contexts: without `--data` all of the same lengths (question 183 tokens, contexts
27, 148, 147 and 149, responses 270 and 239), with it those of a file as training packs them. Shares are of row
length squared: `seen` what the mask lets through, `blocks N` what a kernel with blocks of N tokens visits. A backend
is timed on one row, forward and backward; a kernel only where its devices are.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from amopo_jax.models import ModelConfig
from amopo_jax.models.attention import choose_attention
from amopo_jax.models.attention.block_map import Blocks, live_blocks
from amopo_jax.models.attention.reference import Reach
from benchmarks import report
from benchmarks.input import make_recipe

QUESTION, CONTEXTS, RESPONSES = 183, (27, 148, 147, 149), (270, 239)
SIZES = (512, 256, 128, 64)


def same_pairs(length: int, place: str) -> np.ndarray:
  """`subtree_end` of one row of equal pairs; what does not fit is padding."""
  shared, each = (QUESTION, 0) if place == "after" else (0, QUESTION)
  tokens = shared + sum(each + context + sum(RESPONSES) for context in CONTEXTS)
  ends, start = [], 0
  for context in CONTEXTS:
    first = shared + start + each + context
    start += each + context + sum(RESPONSES)
    ends += [shared + start] * (each + context) + [first + RESPONSES[0]] * RESPONSES[0]
    ends += [shared + start] * RESPONSES[1]
  pair = np.asarray([tokens] * shared + ends)
  row = np.concatenate([pair + first for first in range(0, length - tokens + 1, tokens)] or [pair[:0]])
  return np.pad(row, (0, length - len(row)))[None].astype(np.int32)


def packed_pairs(args: argparse.Namespace, length: int) -> np.ndarray:
  """`subtree_end` of all rows that a file's pairs fill."""
  from amopo_jax.data.dataset import PairDataset
  from amopo_jax.data.pack import pack_all
  from amopo_jax.data.survey import survey

  shape = {"row_length": length, "rows": 8, "max_pairs": 8 * length // 512, "max_length": min(2048, length)}
  recipe = make_recipe(argparse.Namespace(**vars(args) | shape))
  dataset = PairDataset(recipe, survey(recipe).table)
  groups = pack_all([dataset[index] for index in range(len(dataset))], recipe.pack, lookahead=64)
  rows = np.concatenate([group.rows.subtree_end for group in groups[:-1] or groups])
  return np.asarray(rows)


def shares(subtree_end: np.ndarray) -> dict[str, float]:
  """What is seen, and what is visited by blocks, as shares of the square."""
  length = subtree_end.shape[1]
  end = np.maximum(subtree_end, np.arange(1, length + 1))
  found = {"seen": float((end - np.arange(length)).sum() / end.size / length)}
  for size in SIZES:
    more = -length % size
    filled = np.concatenate([end, np.broadcast_to(np.arange(length + 1, length + more + 1), (len(end), more))], axis=1)
    live = live_blocks(Reach(jnp.asarray(filled, jnp.int32), None), Blocks(size, size))
    found[f"blocks {size}"] = float(live.sum()) * size**2 / len(end) / length**2
  return found


def measure(name: str, end: jax.Array, args: argparse.Namespace) -> dict[str, float]:
  """Seconds and temporaries of one row's output and gradients."""
  heads, key_heads, size = args.heads
  config = ModelConfig(
    architecture="Qwen2ForCausalLM",
    vocab_size=1,
    width=heads * size,
    num_layers=1,
    num_heads=heads,
    num_kv_heads=key_heads,
    head_dim=size,
    mlp_width=1,
  )
  dtype, platform = jnp.dtype(args.dtype), jax.devices()[0].platform
  choice = choose_attention(name, config, platform=platform, tensor=1, compute_dtype=dtype)
  draw = lambda count, seed: jax.random.normal(jax.random.key(seed), (1, end.shape[1], count, size), dtype)
  operands = draw(heads, 0), draw(key_heads, 1), draw(key_heads, 2)
  value = lambda *x: jnp.sum(choice.attend(*x, end, chunk=args.chunk).astype(jnp.float32) ** 2)
  compiled = jax.jit(jax.value_and_grad(value, (0, 1, 2))).lower(*operands).compile()
  clock(lambda: compiled(*operands))
  seconds = statistics.median(clock(lambda: compiled(*operands)) for _ in range(args.rounds))
  memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
  return {f"{choice.name} s": seconds, f"{choice.name} MiB": memory}


def clock(run: Callable[[], object]) -> float:
  began = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - began


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  numbers = lambda text: [int(part) for part in text.split(",")]
  parser.add_argument("--lengths", type=numbers, default=[4096, 8192, 16384], help="tokens of the row")
  parser.add_argument("--backends", type=lambda text: text.split(",") if text else [], default=["auto"])
  parser.add_argument("--heads", type=numbers, default=[14, 2, 64], help="query heads, key heads, size of a head")
  parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
  parser.add_argument("--chunk", type=int, default=128, help="config.model.attention_chunk, of xla")
  parser.add_argument("--rounds", type=int, default=5, help="the median counts")
  parser.add_argument("--place", default="after", choices=["before", "after"], help="of the instruction")
  parser.add_argument("--data", default="", help="a file of records")
  parser.add_argument("--format", default="native", help="adapter of the file")
  parser.add_argument("--tokenizer", default="", help="directory or hub name")
  parser.add_argument("--low", type=float, default=0, help="lowest score of the data")
  parser.add_argument("--high", type=float, default=10, help="highest score of the data")
  parser.add_argument("--json", metavar="FILE")
  return parser.parse_args()


def main() -> None:
  args = arguments()
  table = []
  for length in args.lengths:
    end = packed_pairs(args, length) if args.data else same_pairs(length, args.place)
    line = {"length": length, "rows": len(end), **shares(end)}
    for name in args.backends:
      line |= measure(name, jnp.asarray(end[:1]), args)
    table.append(line)
  if args.json:
    report.write(args.json, {"platform": jax.devices()[0].device_kind, "table": table})
  print("  ".join(f"{name:>10}" for name in table[0]))
  for line in table:
    print("  ".join(f"{value:>10.4g}" for value in line.values()))


if __name__ == "__main__":
  main()

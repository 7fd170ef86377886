"""Tokens per second of greedy generation, ours against transformers, of the same random model and prompts.

    python -m benchmarks.generate [--json=FILE] [--shape=tiny] [--batch=64] [--prompt=64] [--new=128] [--rounds=5]
                                  [--devices=CORES]

Both run in this process on the same cores, with a cache of keys and values, float32, no end of turn: every response
has all its tokens. Ours takes every core as a device with a part of the batch, unless told how many; theirs has as many
threads as there are cores. First both make one batch, whose tokens must be the same, in each response up to a place
where two are equally likely but for rounding; then the paired rounds.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from amopo_jax.host import free_cores
from amopo_jax.mesh import ROW_AXES, apart, jit_for, make_mesh, replicated
from amopo_jax.models.attention import choose_attention
from amopo_jax.models.generate import make_generate_fn
from amopo_jax.models.hf_import import load_config, load_params
from amopo_jax.models.sampling import GREEDY
from benchmarks import report

_ROUNDING = 1e-5
"""Of a largest logit: two tokens that are closer may change places in float32."""

_COMMON = {
  "tie_word_embeddings": True,
  "max_position_embeddings": 2048,
  "eos_token_id": None,  # which transformers would leave out where it must not end
  "initializer_range": 0.2,  # far from uniform, so that no two tokens are equally likely
}
_TEST = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 61, "heads": 4}
SHAPES: dict[str, dict[str, Any]] = {
  "test": _TEST,
  "test-llama": _TEST | {"family": "Llama"},
  "test-mistral": _TEST | {"family": "Mistral", "head_dim": 12, "sliding_window": 5},
  "test-qwen3": _TEST | {"family": "Qwen3", "head_dim": 16},
  "tiny": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "vocab_size": 512},
  "small": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 6400},
}
"""`test` and its kin are the sizes of the models whose tokens `tests/models/test_generate.py` compares."""


def save_random(shape: str, folder: Path, seed: int = 0) -> Any:
  """A transformers model of random weights, saved; the model itself."""
  import torch
  import transformers

  torch.manual_seed(seed)
  sizes = SHAPES[shape] | _COMMON
  heads = sizes.pop("heads", sizes["hidden_size"] // 32)
  family = sizes.pop("family", "Qwen2")
  config = getattr(transformers, f"{family}Config")(**sizes, num_attention_heads=heads, num_key_value_heads=heads // 2)
  model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
  model.save_pretrained(folder)
  return model


def theirs(model: Any, prompts: np.ndarray, new: int) -> np.ndarray:
  """Greedy tokens of transformers."""
  import torch

  tokens = torch.from_numpy(prompts.astype(np.int64))
  settings = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0}
  with torch.no_grad():
    found = model.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)
  return found[:, prompts.shape[1] :].numpy()


def make_ours(folder: Path, new: int) -> Any:
  """prompts -> greedy tokens, of the model in a folder; on the devices as `amopo_jax.answer` has it."""
  config, _ = load_config(folder)
  platform = jax.devices()[0].platform
  attend = choose_attention("auto", config, platform=platform, tensor=1, compute_dtype=jnp.float32).attend
  mesh = make_mesh(data=-1, fsdp=1, tensor=1)
  params = jax.device_put(load_params(folder, config, dtype=jnp.float32), replicated(mesh))
  generate = make_generate_fn(
    config,
    max_new=new,
    end_tokens=[config.vocab_size],  # which never comes
    sampling=GREEDY,
    compute_dtype=jnp.float32,
    attention_chunk=256,
    attend=attend,
    is_apart=True,
  )
  run, rows = jit_for(mesh, apart(generate, mesh), is_small=True), NamedSharding(mesh, PartitionSpec(ROW_AXES))
  key_of = jax.jit(jax.vmap(partial(jax.random.fold_in, jax.random.key(0))), out_shardings=rows)
  put = lambda x: jax.make_array_from_callback(x.shape, rows, lambda index: x[index])

  def ours(prompts: np.ndarray) -> np.ndarray:
    numbers, padding = np.arange(len(prompts), dtype=np.int32), np.zeros(len(prompts), np.int32)
    found = run(params, put(prompts), put(padding), key_of(put(numbers)))
    return np.asarray(found.tokens)

  return ours


def largest_gap(model: Any, prompts: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
  """How far apart transformers' logits of two tokens are where responses part, at most, in shares of the largest logit.

  Behind that place each goes on from a text of its own, and nothing can be compared.
  """
  import torch

  gaps = [0.0]
  for prompt, one, other in zip(prompts, ours, theirs, strict=True):
    if not np.array_equal(one, other):
      place = int(np.argmax(one != other))
      text = np.concatenate([prompt, one[:place]]).astype(np.int64)
      with torch.no_grad():
        logits = model(torch.from_numpy(text)[None]).logits[0, -1].numpy()
      gaps.append(float(abs(logits[one[place]] - logits[other[place]]) / np.abs(logits).max()))
  return max(gaps)


def measure(shape: str, *, batch: int, prompt: int, new: int, rounds: int) -> dict[str, Any]:
  """Seconds of both, round by round.

  Raises:
    RuntimeError: the tokens differ.
  """
  with tempfile.TemporaryDirectory() as folder:
    model = save_random(shape, Path(folder))
    ours = make_ours(Path(folder), new)
  prompts = np.random.default_rng(0).integers(1, SHAPES[shape]["vocab_size"], (batch, prompt)).astype(np.int32)
  one, other = ours(prompts), theirs(model, prompts, new)
  same = float(np.mean(one == other))
  if (gap := largest_gap(model, prompts, one, other)) > _ROUNDING:
    raise RuntimeError(
      f"generate: {1 - same:.1%} of the tokens differ, the first of a response by logits {gap:.2g} apart"
    )
  seconds: dict[str, list[float]] = {"ours": [], "transformers": []}
  for _ in range(rounds):
    for name, run in (("ours", ours), ("transformers", lambda p: theirs(model, p, new))):
      run(prompts)  # batches come in a row: the first behind the other's finds strange caches
      began = time.perf_counter()
      run(prompts)
      seconds[name].append(time.perf_counter() - began)
  times = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["transformers"], strict=True))
  rate = {name: batch * new / statistics.median(of) for name, of in seconds.items()}
  return {"shape": shape, "same_tokens": same, "seconds": seconds, "tokens_per_second": rate, "times": times}


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--json", metavar="FILE")
  parser.add_argument("--shape", default="tiny", choices=SHAPES)
  for name, default in (("batch", 64), ("prompt", 64), ("new", 128), ("rounds", 5)):
    parser.add_argument(f"--{name}", type=int, default=default)
  parser.add_argument("--devices", type=int, help="on a CPU; default: as many of its cores as divide the batch")
  args = parser.parse_args()
  most = max(n for n in range(1, len(free_cores()) + 1) if args.batch % n == 0)
  jax.config.update("jax_num_cpu_devices", args.devices or most)
  if args.batch % jax.device_count():
    parser.error(f"--batch={args.batch} does not divide over {jax.device_count()} devices")
  found = {"devices": jax.device_count()} | measure(
    args.shape, batch=args.batch, prompt=args.prompt, new=args.new, rounds=args.rounds
  )
  lines = [("greedy", "tokens/s", "s")]
  for name, rate in found["tokens_per_second"].items():
    lines.append((name, f"{rate:,.0f}", f"{statistics.median(found['seconds'][name]):.2f}"))
  print(report.align(lines))
  print(f"{found['times']:.1f} times as fast; {found['same_tokens']:.2%} of the tokens are the same")
  if args.json:
    report.write(args.json, found)


if __name__ == "__main__":
  main()

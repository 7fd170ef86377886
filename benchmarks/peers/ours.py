"""This project: the trie, or with `options["shared"] = false` one segment per sequence, (c) of the tables.

The score function, the objective, the optimizer and the step are built from configs/base.py as `amopo train` builds
them, so a change of the defaults shows here; `options["overrides"]` are its `--config.a.b=v`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import build_objective
from amopo_jax.build_step import build_optimizer
from amopo_jax.cli.configs import spec_from_config
from amopo_jax.data.collate import collate
from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.fit import Sized
from amopo_jax.data.pack import Group, PackSpec, empty_group, pack_group
from amopo_jax.data.trie import Segment, size, unshared
from amopo_jax.load import load_policy
from amopo_jax.models.head import kept_chunks
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import find_policy
from amopo_jax.run_spec import RunSpec
from amopo_jax.state import TrainState, abstract_state, init_state
from amopo_jax.step import jit_train_step, make_train_step
from amopo_jax.types import NO_SLOT, InputError, PackedRows, Params
from benchmarks.peers.pairs import Pairs
from benchmarks.peers.serve import Counts, Job, Loss, Trainer, peak_resident, serve
from configs import base

RECOMPUTED = {
  "none": ("scores",),
  "dots": ("scores",),
  "dots_no_batch": ("attention", "scores"),
  "save_attention": ("layers", "scores"),
  "full": ("layers", "attention", "scores"),
}
"""What each remat policy computes again; the scores of the attention are never kept."""

LONGEST_ROW = 8192
"""Of the rows that are not asked for."""


def open_trainer(job: Job) -> Trainer:
  """Builds the step, and the batch in its layout."""
  spec = make_spec(job)
  encoded = encode(job.pairs)
  layout = shared_rows if job.options["shared"] else unshared_rows
  group = layout(encoded, job.options.get("row_length", 0))
  mesh = meshes.make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])
  source = find_policy(job.model, {})
  num_contexts = len(encoded[0].prompts)
  shape = group.rows.tokens.shape
  score_fn = build.build_score_fn(spec.model, source.config, num_contexts, mesh, rows=shape)
  tx, schedule = build_optimizer(spec, 1)
  dtype = build.dtype("dtype", spec.model.param_dtype)
  placed = build.param_shardings(spec, abstract_params(source.config, dtype), mesh)
  state = start(load_policy(source, dtype=dtype, shardings=placed), tx, placed, mesh)
  objective = build_objective(spec.objective, num_contexts, parts=1)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  jitted: Any = jit_train_step(make_train_step(score_fn, objective, tx, schedule), shardings, mesh)
  batch = meshes.place_batch(collate([group], accumulation=1, num_pairs=len(encoded)), mesh)
  train_step = jitted.lower(state, batch).compile()

  def step() -> Loss:
    nonlocal state
    state, metrics = train_step(state, batch)
    values = jax.device_get(jax.block_until_ready((state, metrics))[1])
    sums, is_alone = values["sums"], len(encoded) == 1  # then a sum over pairs is the sequence itself
    logps = tuple(map(float, sums.logps.flat)) if is_alone else ()
    return Loss(float(sums.loss / sums.pairs), logps, float(values["grad_norm"]))

  found = counts(group, spec, source.config.vocab_size)
  temporaries = train_step.memory_analysis().temp_size_in_bytes
  return Trainer(step, found._replace(temporaries=temporaries), lambda: peak_bytes(job.device))


def start(params: Params, tx: optax.GradientTransformation, placed: Any, mesh: Mesh) -> TrainState:
  """The state before the first step, under the shardings that the step keeps: else it would compile twice."""
  seed = base.get_config().seed
  shardings = meshes.state_shardings(abstract_state(params, tx, seed=seed), params, placed, mesh)
  make = lambda params: init_state(params, tx, seed=seed)
  return jax.jit(make, out_shardings=shardings, donate_argnums=0)(params)


def make_spec(job: Job) -> RunSpec:
  """configs/base.py with the job's numbers, no clipping and a constant rate."""
  config = base.get_config()
  config.model.update(path=job.model, param_dtype=job.dtype, compute_dtype=job.dtype)
  config.objective.update(beta=job.beta, target_margin=job.target_margin)
  config.optim.update(learning_rate=job.learning_rate, schedule="constant", warmup_fraction=0.0, clip=0.0)
  return spec_from_config(override(config, job.options.get("overrides", ())))


def override(config: ConfigDict, pairs: Sequence[str]) -> ConfigDict:
  """Sets `a.b=v`; the value takes the type of the one that was there."""
  for pair in pairs:
    name, _, text = pair.partition("=")
    *path, key = name.split(".")
    node = config
    for part in path:
      node = node[part]
    node[key] = type(node[key])(text)
  return config


def encode(pairs: Pairs) -> list[EncodedPair]:
  """The pairs as the encoder would give them, every dimension in the annotators' order."""
  ones = lambda prompts, kind: np.ones(len(prompts), kind)
  return [
    EncodedPair(tuple(prompts), (two[0], two[1]), ones(prompts, bool), ones(prompts, np.float32), number, 0, "drawn")
    for number, (prompts, two) in enumerate(zip(pairs.prompts, pairs.responses, strict=True))
  ]


def shared_rows(encoded: Sequence[EncodedPair], row_length: int) -> Group:
  """Tries in as few rows as they need; without a row length of one that wastes least.

  A run packs many pairs into rows of 4,096 tokens and wastes next to nothing (`benchmarks.input`). A handful of pairs
  cannot fill such rows, so theirs are somewhat longer, or as long as all pairs together.
  """
  whole = sum(size(pair, pair.leaves) for pair in encoded)
  if row_length:
    return _packed(encoded, row_length, whole)
  lengths = (whole,) if whole <= LONGEST_ROW else range(LONGEST_ROW // 2, LONGEST_ROW + 1, 256)
  return min((_packed(encoded, length, whole) for length in lengths), key=lambda group: group.rows.tokens.size)


def _packed(encoded: Sequence[EncodedPair], length: int, whole: int) -> Group:
  pending, num_rows = [Sized(pair) for pair in encoded], -(-whole // length)
  most = num_rows + len(encoded) * 2 * len(encoded[0].prompts)  # a row for every sequence
  while True:
    spec = PackSpec(length, num_rows, len(encoded), len(encoded[0].prompts))
    try:
      group, taken = pack_group(pending, spec)
    except InputError:  # a pair needs more rows than these by itself
      if num_rows > most:
        raise
      taken = []
    if len(taken) == len(encoded):
      return group
    num_rows += 1


def unshared_rows(encoded: Sequence[EncodedPair], row_length: int) -> Group:
  """One segment per sequence, the longest first into the first row with room; rows as long as the longest."""
  slots = 2 * len(encoded[0].prompts)
  segments = [part for number, pair in enumerate(encoded) for part in unshared(pair, number * slots)]
  segments.sort(key=lambda part: -len(part.tokens))
  length = max(row_length, len(segments[0].tokens))
  rows: list[list[Segment]] = []
  for part in segments:
    has_room = lambda row, part=part: sum(len(other.tokens) for other in row) + len(part.tokens) <= length
    row = next(filter(has_room, rows), None)
    row.append(part) if row else rows.append([part])
  group = empty_group(PackSpec(length, len(rows), len(encoded), slots // 2))
  for number, row in enumerate(rows):
    _write(PackedRows(*(field[number] for field in group.rows)), row)
  ones: Any = np.ones_like(group.is_ordered)
  return group._replace(
    is_ordered=ones, score_gap=ones.astype(np.float32), index=np.arange(len(encoded), dtype=np.int32)
  )


def _write(row: PackedRows, segments: Sequence[Segment]) -> None:
  start = 0
  for part in segments:
    stop = start + len(part.tokens)
    moved = part._replace(
      subtree_end=part.subtree_end + start, parent=np.where(part.positions > 0, part.parent + start, 0)
    )
    for name, field in zip(PackedRows._fields, row, strict=True):
      field[start:stop] = getattr(moved, name)
    start = stop


def counts(group: Group, spec: RunSpec, vocab_size: int) -> Counts:
  """Of a layout: a token sees as many keys as it is deep."""
  rows = group.rows
  is_token = np.asarray(rows.subtree_end) > 0
  attended = int((np.asarray(rows.positions)[is_token] + 1).sum())
  recomputed = (*RECOMPUTED[spec.model.remat], "head")
  scored = int((np.asarray(rows.slot) != NO_SLOT).sum())
  chunk = min(spec.model.head_chunk, is_token.size)
  kept = min(chunk * kept_chunks(spec.model.head_keep, chunk, vocab_size), scored)
  return Counts(is_token.size, scored, attended, recomputed, 1 - kept / scored)


def peak_bytes(device: str) -> int:
  """Of the accelerator, or of the process."""
  stats = jax.local_devices()[0].memory_stats() if device == "gpu" else None
  return int(stats["peak_bytes_in_use"]) if stats else peak_resident()


if __name__ == "__main__":
  serve(open_trainer)

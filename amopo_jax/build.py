"""From a `RunSpec` to the mesh, the feed and the score function; everything that can be wrong is found here."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from amopo_jax import mesh as meshes
from amopo_jax import processes
from amopo_jax.build_data import num_streams, pack_spec
from amopo_jax.feed import FeedSpec, make_feed_spec
from amopo_jax.host import give_back_after_compiling
from amopo_jax.models.attention import BACKENDS, XLA, Attention, Choice, choose_attention
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.head import BLOCK_LOGITS, GPU_BLOCK_LOGITS, make_room
from amopo_jax.models.score import ScoreFn, make_score_fn
from amopo_jax.models.transformer import REMAT
from amopo_jax.policy import DTYPES
from amopo_jax.run_spec import BatchSpec, ModelSpec, RunSpec, check_name


def build_mesh(spec: RunSpec, devices: Sequence[Any] | None = None) -> Mesh:
  """The mesh, of the devices given or of all, with rows that divide over it and rules that can be read."""
  mesh = build_bare_mesh(spec, devices)
  check_rows(spec.batch, mesh)
  return mesh


def build_bare_mesh(spec: RunSpec, devices: Sequence[Any] | None = None) -> Mesh:
  """The mesh for what does not use the config's rows."""
  meshes.check_rules(spec.mesh.rules)
  return meshes.make_mesh(**{name: getattr(spec.mesh, name) for name in (*meshes.AXES, "slices")}, devices=devices)


def build_feed_spec(spec: RunSpec, mesh: Mesh) -> FeedSpec:
  """How the groups of a step come onto the devices of several processes."""
  batch = spec.batch
  return make_feed_spec(
    mesh,
    num_streams=num_streams(batch),
    accumulation=batch.accumulation,
    rows=batch.group_rows,
    max_pairs=pack_spec(batch, len(spec.data.contexts)).max_pairs,
  )


def check_rows(batch: BatchSpec, mesh: meshes.AnyMesh) -> None:
  """Refuses rows that do not divide over a mesh, which may be abstract."""
  meshes.check_batch(mesh, rows=batch.rows // batch.accumulation, row_length=batch.row_length)


def build_score_fn(
  spec: ModelSpec,
  config: ModelConfig,
  num_contexts: int,
  mesh: Mesh,
  *,
  rows: tuple[int, int] = (0, 0),
  block_logits: int | None = None,
  attend: Attention | None = None,
) -> ScoreFn:
  """The policy's score function on a mesh.

  Args:
    spec: of the config.
    config: the decoder.
    num_contexts: K.
    mesh: devices.
    rows: R and S of a micro-batch that it trains on; zeros where it only scores.
    block_logits: most logits that the output head computes at a time; None: what suits the devices.
    attend: of `build_attention`; None: chosen here.

  Raises:
    InputError: an unknown name, or an attention that cannot be.
  """
  check_name("config.model.remat", spec.remat, REMAT)
  platform = mesh.devices.flat[0].platform
  if block_logits is None:
    block_logits = GPU_BLOCK_LOGITS if platform == "gpu" else BLOCK_LOGITS
  room = None  # an accelerator's allocator keeps its memory itself
  if mesh.size == 1 and platform == "cpu":
    give_back_after_compiling()
    room = make_room(rows, config.vocab_size, chunk=spec.head_chunk, keep=spec.head_keep)
  return make_score_fn(
    config,
    num_contexts=num_contexts,
    compute_dtype=dtype("config.model.compute_dtype", spec.compute_dtype),
    remat=spec.remat,
    attention_chunk=spec.attention_chunk,
    head_chunk=spec.head_chunk,
    head_keep=spec.head_keep,
    block_logits=block_logits,
    unroll=spec.unroll,
    head_shards=meshes.row_shards(mesh),
    head_sharers=mesh.shape["context"],
    vocab_shards=meshes.vocab_shards(mesh, config.vocab_size),
    room=room,
    attend=attend or build_attention(spec, config, mesh).attend,
    constrain=meshes.make_constrain(mesh),
  )


def build_attention(spec: ModelSpec, config: ModelConfig, mesh: Mesh, *, is_whole: bool = True) -> Choice:
  """The attention for the devices of a mesh, split by rows, queries and heads; XLA splits the reference by itself.

  Args:
    spec: names it.
    config: of the model.
    mesh: where it runs.
    is_whole: it gets whole arrays; False: those of one device, and is not split.
  """
  check_name("config.model.attention", spec.attention, BACKENDS)
  name, attend = choose_attention(
    spec.attention,
    config,
    platform=mesh.devices.flat[0].platform,
    tensor=mesh.shape["tensor"],
    context=mesh.shape["context"],
    compute_dtype=dtype("config.model.compute_dtype", spec.compute_dtype),
    device=next((one for one in mesh.devices.flat if one.process_index == jax.process_index()), None),
  )
  processes.agree("attention", name)  # of `auto` each has made a trial of its own
  is_split = is_whole and (name != XLA or mesh.shape["context"] > 1)
  return Choice(name, meshes.split_attention(attend, mesh) if is_split else attend)


def dtype(where: str, name: str) -> Any:
  """float32 or bfloat16 by name."""
  check_name(where, name, DTYPES)
  return DTYPES[name]


def param_shardings(spec: RunSpec, params: Any, mesh: meshes.AnyMesh) -> Any:
  """Shardings of the parameters: the config's rules first, then the default ones."""
  return meshes.param_shardings(params, mesh, (*spec.mesh.rules, *meshes.DEFAULT_RULES))

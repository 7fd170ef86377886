"""Where batches and activations lie, and how an attention that knows one device runs on many."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amopo_jax.mesh.devices import ROW_AXES, AnyMesh, replicated, row_shards
from amopo_jax.types import Batch, InputError


def check_batch(mesh: AnyMesh, *, rows: int, row_length: int) -> None:
  """Refuses a micro-batch that does not divide over a mesh.

  Args:
    mesh: of `make_mesh`.
    rows, row_length: R and S.

  Raises:
    InputError: some device would have more of it than another.
  """
  shards, parts = row_shards(mesh), mesh.shape["context"]
  if rows % shards:
    raise InputError(f"config.batch: {rows} rows per micro-batch do not divide over {shards} devices, data * fsdp")
  if row_length % parts:
    raise InputError(
      f"config.batch.row_length: {row_length} tokens do not divide over config.mesh.context={parts} devices; "
      "choose a multiple"
    )


class Share(NamedTuple):
  """Groups of rows of a micro-batch that a process holds on the host.

  Attributes:
    groups: their numbers, ascending.
    num_groups: in the whole micro-batch.
  """

  groups: tuple[int, ...]
  num_groups: int


WHOLE = Share((0,), 1)
"""All rows, as one group."""


def place_batch(batch: Batch, mesh: Mesh, share: Share = WHOLE) -> Batch:
  """Puts a host batch onto the devices: rows over data and fsdp, and pairs too where they divide.

  Args:
    batch: the groups of the share, numpy; of one process, all there are.
    mesh: of `make_mesh`.
    share: says which groups these are.
  """

  def put(local: Any, sharding: NamedSharding) -> jax.Array:
    in_group = local.shape[1] // len(share.groups)
    shape = (local.shape[0], share.num_groups * in_group, *local.shape[2:])

    def part(index: Any) -> Any:
      start, stop, _ = index[1].indices(shape[1])
      shift = (share.groups.index(start // in_group) - start // in_group) * in_group
      return local[:, start + shift : stop + shift]

    return jax.make_array_from_callback(shape, sharding, part)

  num_pairs = batch.index.shape[1] // len(share.groups) * share.num_groups
  rows, pairs = batch_shardings(num_pairs, mesh)
  put_all = lambda sharding, tree: jax.tree.map(lambda x: put(x, sharding), tree)
  return Batch(put_all(rows, batch.rows), put_all(pairs, batch.pairs), put_all(pairs, batch.index))


def batch_shardings(num_pairs: int, mesh: AnyMesh) -> tuple[NamedSharding, NamedSharding]:
  """Where a batch lies: its rows over data and fsdp, and its pairs too where they divide.

  A device holds its rows whole: they are small, and attention looks at all of a row whatever part has the queries.

  Args:
    num_pairs: places for pairs in a micro-batch.
    mesh: of `make_mesh`.

  Returns:
    Of the rows, of the pairs.
  """
  split = NamedSharding(mesh, PartitionSpec(None, ROW_AXES))
  return split, split if num_pairs % row_shards(mesh) == 0 else replicated(mesh)


def make_constrain(mesh: Mesh):
  """The hook by which the model, which knows no mesh, keeps its activations where they belong.

  Returns:
    `constrain(x, kind)`, kind "residual" for hidden states and what belongs to their tokens, rows and tokens first;
    "embedded" for the first ones, as they come from a table whose width is split; "head_shards" for what the head
    takes, by shard of rows and by device that shares it; or "head_weight" for the output embedding, gathered before
    the head's loop.
  """
  specs = {
    # From a width that is split over two axes the compiler finds no way to rows and tokens but by copying all of them
    # everywhere; so tokens are split first, then rows.
    "embedded": PartitionSpec("data", "context", "fsdp") if mesh.shape["context"] > 1 else None,
    "residual": PartitionSpec(ROW_AXES, "context"),
    "head_shards": PartitionSpec(ROW_AXES, "context"),
    "head_weight": PartitionSpec("tensor"),
  }

  def constrain(x: jax.Array, kind: str) -> jax.Array:
    spec = specs[kind]
    return x if spec is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  return constrain


def split_attention(attend: Callable[..., jax.Array], mesh: Mesh) -> Callable[..., jax.Array]:
  """Runs an attention that knows one device on many: rows over data and fsdp, queries over context, heads over tensor.

  The queries of a row stay where they are; keys and values are gathered over context, and their gradients summed and
  scattered.

  Args:
    attend: (q, k, v, subtree_end, positions=…, **static) -> heads' outputs; rows and heads are independent. Where
      context is more than 1 it also gets `offset`, the number of its first query.
    mesh: whose tensor axis divides the key heads, context the tokens, and the other axes the rows.

  Returns:
    The same on whole arrays.
  """
  heads, tokens = PartitionSpec(ROW_AXES, "context", "tensor"), PartitionSpec(ROW_AXES)
  parts = mesh.shape["context"]

  def attended(
    q: jax.Array, k: jax.Array, v: jax.Array, subtree_end: jax.Array, *, positions: jax.Array, **static: Any
  ) -> jax.Array:
    def one(q: jax.Array, k: jax.Array, v: jax.Array, end: jax.Array, positions: jax.Array) -> jax.Array:
      if parts == 1:
        return attend(q, k, v, end, positions=positions, **static)
      k, v = (jax.lax.all_gather(x, "context", axis=1, tiled=True) for x in (k, v))
      offset = jax.lax.axis_index("context") * q.shape[1]
      return attend(q, k, v, end, positions=positions, offset=offset, **static)

    # The kernels do not say over which axes their results vary, so that this cannot be checked.
    split = jax.shard_map(
      one, mesh=mesh, in_specs=(heads, heads, heads, tokens, tokens), out_specs=heads, check_vma=False
    )
    return split(q, k, v, subtree_end, positions)

  return attended


def each_has_all(params: Any, mesh: AnyMesh) -> bool:
  """Whether every device of a mesh holds all parameters, so that nothing ties its rows to those of others."""
  return mesh.size == mesh.shape["data"] and all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))


def apart(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
  """Runs a function on each device's rows by themselves: no device waits for another.

  Args:
    function: (parameters, *arrays by rows) -> arrays by rows; a row does not depend on others.
    mesh: on which `each_has_all`.

  Returns:
    The same on whole arrays.
  """
  rows = PartitionSpec("data")

  def on_each(params: Any, *arrays: jax.Array) -> Any:
    specs = (PartitionSpec(), *(rows for _ in arrays))
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)(params, *arrays)

  return on_each

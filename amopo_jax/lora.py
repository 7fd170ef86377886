"""LoRA in a run: what of the policy is trained and what is frozen, where both lie, and how a step sees them.

Without adapters (`config.lora.rank = 0`) all parameters are trained and there is no frozen base: `Split.base` is None,
`Split.join` gives back what it gets, and the programs are the same as if this module were not there.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array

from amopo_jax.lora_shardings import adapter_shardings, base_shardings
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.lora import (
  Kernel,
  abstract_adapters,
  abstract_base,
  as_kernel,
  init_adapters,
  join,
  kernel_leaves,
  target_leaves,
)
from amopo_jax.models.quantized import TYPES
from amopo_jax.models.transformer import abstract_params
from amopo_jax.run_spec import LoraSpec, check_name
from amopo_jax.state import digests
from amopo_jax.step import ScoreFn
from amopo_jax.types import Batch, InputError, Params

BASE_DTYPES = ("bfloat16", *TYPES)
"""Values of `config.lora.base_dtype`, besides "" for the type of all parameters."""


_ADAPTERS = 1 << 20
"""What the seed's key is folded with, far from the counts by which the draws of a whole model are told apart."""


class Split(NamedTuple):
  """The parameters of a run in two, abstract.

  Attributes:
    params: shapes and types of what is trained.
    placed: its shardings.
    base: shapes, types and shardings of what is frozen; None where everything is trained.
    join: (trained, frozen) -> the tree that the decoder computes with.
  """

  params: Params
  placed: Any
  base: Params | None
  join: Callable[[Params, Params | None], Params]


class Base(NamedTuple):
  """What is frozen, loaded.

  Attributes:
    params: the arrays; None where everything is trained.
    fingerprint: of their bits, by which a checkpoint knows its base; "" where there is none.
  """

  params: Params | None
  fingerprint: str


def split_params(lora: LoraSpec, config: ModelConfig, dtype: Any, placed: Any) -> Split:
  """What of a run's policy is trained and what is frozen.

  Args:
    lora: of the config.
    config: the decoder.
    dtype: of the parameters, and where there are adapters of them and of all of the base but its kernels.
    placed: shardings of the whole parameters.

  Raises:
    InputError: a value of `config.lora` that cannot be, or a mesh over which something does not divide.
  """
  check_lora(lora, config)
  if not lora.rank:
    return Split(abstract_params(config, dtype), placed, None, lambda params, base: params)
  return split_lora(lora, config, dtype, placed)


def split_lora(lora: LoraSpec, config: ModelConfig, dtype: Any, placed: Any) -> Split:
  """Adapters and base, each of which lies where its kernel does; arguments as of `split_params`, of a positive rank."""
  kernel_type = base_type(lora, dtype)
  abstract = abstract_base(config, dtype=dtype, kernel_type=kernel_type)
  adapters = abstract_adapters(config, rank=lora.rank, targets=lora.targets, dtype=dtype)
  beside = adapter_shardings(target_leaves(config, lora.targets), placed)
  shardings = base_shardings(kernel_leaves(config), placed) if kernel_type in TYPES else placed
  put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  scale = lora.alpha / lora.rank
  whole = lambda params, base: join(params, base or {}, scale)
  return Split(adapters, beside, jax.tree.map(put, abstract, shardings), whole)


def base_type(lora: LoraSpec, dtype: Any) -> str:
  """Type of the frozen kernels: a name of `quantized.TYPES`, or of a float type."""
  return lora.base_dtype or jax.numpy.dtype(dtype).name


def start_adapters(lora: LoraSpec, config: ModelConfig, split: Split, *, seed: int) -> Params:
  """The adapters before the first step, under their shardings.

  Args:
    lora: of the config.
    config: the decoder.
    split: of `split_params`.
    seed: of the run.
  """
  dtype = jax.tree.leaves(split.params)[0].dtype
  make = lambda key: init_adapters(config, key, rank=lora.rank, targets=lora.targets, dtype=dtype)
  return jax.jit(make, out_shardings=split.placed)(jax.random.fold_in(jax.random.key(seed), _ADAPTERS))


def convert_kernel(kernel: Array, kernel_type: str, shardings: Any) -> Kernel:
  """A float kernel in the base's type, each device quantizing the part that it keeps.

  Args:
    kernel: under any sharding.
    kernel_type: of `base_type`.
    shardings: of the result.
  """
  one: Callable[[Array], Kernel] = lambda kernel: as_kernel(kernel, kernel_type)
  if kernel_type in TYPES:
    one = lambda kernel: jax.lax.map(lambda layer: as_kernel(layer, kernel_type), kernel)
    whole = shardings["qvalue"]
    if isinstance(whole, NamedSharding):
      one = jax.shard_map(one, mesh=whole.mesh, in_specs=whole.spec, out_specs=whole.spec)
  return jax.jit(one, out_shardings=shardings)(kernel)


def check_lora(lora: LoraSpec, config: ModelConfig) -> None:
  """Refuses what cannot be, by key.

  Raises:
    InputError: see there.
  """
  if lora.base_dtype:
    check_name("config.lora.base_dtype", lora.base_dtype, BASE_DTYPES)
  if not lora.rank:
    if lora.base_dtype:
      raise InputError(
        f"config.lora.base_dtype: {lora.base_dtype} has no effect at rank 0; set config.lora.rank, or leave it at ''"
      )
    return
  if not 0 < lora.alpha < math.inf:
    raise InputError(f"config.lora.alpha: {lora.alpha} is not a finite positive number; the usual value is 16")
  for leaf in target_leaves(config, lora.targets):
    if lora.rank > min(leaf.shape[1:]):
      raise InputError(
        f"config.lora.rank: {lora.rank} is more than {'/'.join(leaf.path)} {leaf.shape[1:]} has; "
        f"give at most {min(leaf.shape[1:])}, or leave that kernel out of config.lora.targets"
      )


def with_base(
  make: Callable[[ScoreFn], Callable[[Any, Batch], Any]],
  score_fn: ScoreFn,
  join: Callable[[Params, Params | None], Params],
) -> Callable[..., Any]:
  """A step whose last argument is the frozen base: neither gradient nor optimizer sees it.

  Args:
    make: score function -> step(state or parameters, batch), as `step.make_eval_step` is one.
    score_fn: of the whole parameters.
    join: of `Split`.

  Returns:
    `step(state or parameters, batch, base=None)`.
  """

  def step(state: Any, batch: Batch, base: Params | None = None) -> Any:
    bound: ScoreFn = lambda params, rows, num_pairs: score_fn(join(params, base), rows, num_pairs)
    return make(bound)(state, batch)

  return step


def fingerprint(params: Params) -> str:
  """A short name for the bits of a tree, whatever its sharding."""
  return hashlib.sha256(json.dumps(sorted(digests(params).items())).encode()).hexdigest()[:16]


def check_base(found: str, expected: str, where: str, base: str) -> None:
  """Refuses adapters that were trained on another base.

  Args:
    found, expected: fingerprints of the base that is there and of that of the adapters.
    where: whose adapters, for the message.
    base: where the base comes from, "" for random weights.

  Raises:
    InputError: they differ.
  """
  if found != expected:
    raise InputError(
      f"{where}: its adapters belong to another base than {base or 'the random weights of its seed'} has now "
      f"({expected or 'none'}, found {found or 'none'}); put the model back that it was trained on; if it is that, and "
      "quantized, use the kind of device that it was trained on, since others round otherwise"
    )

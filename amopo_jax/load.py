"""A policy's arrays, straight under their shardings: of a Hugging Face directory, of a checkpoint, or random.

A run with adapters saves nothing else. Its policy is made of them and of the base that its config names, in two ways:
side by side, as it is trained, or merged into whole kernels, as everyone else wants it.
"""

from functools import partial
from typing import Any

import jax
from jax.sharding import Sharding

from amopo_jax.checkpoint import Checkpoints
from amopo_jax.lora import Base, Split, base_type, check_base, convert_kernel, fingerprint, split_lora
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_import import load_params
from amopo_jax.models.hf_names import get_leaf, leaves, set_leaf
from amopo_jax.models.lora import abstract_adapters, adapters_at, float_kernel, kernel_leaves, merge_kernel
from amopo_jax.models.transformer import abstract_params, init_params
from amopo_jax.policy import DTYPES, PolicySource, find_policy, has_adapters, read_run, saved_dtype
from amopo_jax.run_spec import LoraSpec, RunSpec
from amopo_jax.types import InputError, Params


def load_policy(source: PolicySource, *, dtype: Any, shardings: Any, seed: int = 0) -> Params:
  """The parameters, straight under their shardings; those of a run with adapters are merged with their base.

  Args:
    source: of `find_policy`.
    dtype: of the parameters.
    shardings: tree like the parameters.
    seed: of random weights.
  """
  if source.step is not None and has_adapters(source.path):
    return _load_merged(source, dtype=dtype, shardings=shardings).params or {}
  if source.step is not None:
    return _load_checkpoint(source.path, source.step, source.config, dtype=dtype, shardings=shardings)
  if source.path:
    return load_params(source.path, source.config, dtype=dtype, shardings=shardings)
  init = jax.jit(lambda key: init_params(source.config, key, dtype), out_shardings=shardings)
  return init(jax.random.key(seed))


def _load_checkpoint(path: str, step: int, config: ModelConfig, *, dtype: Any, shardings: Any) -> Params:
  """Of a workdir; read as it was saved, since its checksums are of that, then in the type that is wanted."""
  trained = DTYPES[saved_dtype(path)]
  put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  target = jax.tree.map(put, abstract_params(config, trained), shardings)
  params = Checkpoints(path, read_only=True).restore_params(step, target)
  if trained == dtype:
    return params
  cast = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree), out_shardings=shardings)
  return cast(params)


def load_base(source: PolicySource, split: Split, lora: LoraSpec, *, dtype: Any, placed: Any, seed: int) -> Base:
  """The frozen part of a policy; read from a Hugging Face directory, its kernels are quantized one by one on the way.

  Args:
    source: of `find_policy`.
    split: of `lora.split_params`.
    lora: of the config.
    dtype: of all but the kernels.
    placed: shardings of the whole parameters.
    seed: of random weights.
  """
  if split.base is None:
    return Base(None, "")
  shardings, kernel_type = jax.tree.map(lambda leaf: leaf.sharding, split.base), base_type(lora, dtype)
  if source.path and source.step is None:
    params = load_params(source.path, source.config, dtype=dtype, shardings=shardings, kernel_type=kernel_type)
    return Base(params, fingerprint(params))
  if source.step is not None and has_adapters(source.path):
    loaded = _load_merged(source, dtype=dtype, shardings=placed)
  else:
    loaded = Base(load_policy(source, dtype=dtype, shardings=placed, seed=seed), "")
  params = loaded.params or {}
  for leaf in kernel_leaves(source.config):
    made = convert_kernel(get_leaf(params, leaf.path), kernel_type, get_leaf(shardings, leaf.path))
    set_leaf(params, leaf.path, made)
  return Base(params, loaded.fingerprint or fingerprint(params))


def load_adapters(source: PolicySource, spec: RunSpec, placed: Any) -> Params:
  """The adapters of a workdir.

  Args:
    source: of `find_policy`, a run with adapters.
    spec: its config.
    placed: their shardings, or one for all of them.
  """
  dtype = DTYPES[spec.model.param_dtype]
  adapters = abstract_adapters(source.config, rank=spec.lora.rank, targets=spec.lora.targets, dtype=dtype)
  one = isinstance(placed, Sharding)
  put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  target = jax.tree.map(put, adapters, jax.tree.map(lambda _: placed, adapters) if one else placed)
  return Checkpoints(source.path, read_only=True).restore_params(int(source.step or 0), target)


def _load_merged(source: PolicySource, *, dtype: Any, shardings: Any) -> Base:
  """Base and adapters of a workdir in one tree of whole kernels, made one by one.

  Its fingerprint is that of the two: the last bits of a sum of products differ from mesh to mesh.
  """
  spec = read_run(source.path).spec
  try:
    origin = find_policy(spec.model.path, dict(spec.model.arch))
  except InputError as error:
    raise InputError(f"{source.path}: holds adapters only, and their base cannot be loaded: {error}") from None
  trained = DTYPES[spec.model.param_dtype]
  split = split_lora(spec.lora, source.config, trained, shardings)
  adapters = load_adapters(source, spec, split.placed)
  base = load_base(origin, split, spec.lora, dtype=trained, placed=shardings, seed=spec.seed)
  meta = Checkpoints(source.path, read_only=True).read_meta(int(source.step or 0))
  check_base(base.fingerprint, meta.get("base", ""), source.path, spec.model.path)
  params, scale = dict(base.params or {}), spec.lora.alpha / spec.lora.rank
  for leaf in leaves(source.config):
    value, pair = get_leaf(params, leaf.path), adapters_at(adapters, leaf) or ()
    make = partial(merge_kernel, scale=scale, dtype=dtype) if pair else partial(float_kernel, dtype=dtype)
    set_leaf(params, leaf.path, jax.jit(make, out_shardings=get_leaf(shardings, leaf.path))(value, *pair))
  return Base(params, f"{base.fingerprint}+{fingerprint(adapters)}")

"""Responses of one policy on the devices of a mesh: prompts as lists of tokens in, responses on the host out."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.data.tokenizer import TokenIds, Tokenizer
from amopo_jax.models.generate import Generated, GenerateFn, make_generate_fn, padded_length
from amopo_jax.models.layout import identity
from amopo_jax.models.sampling import Sampling
from amopo_jax.policy import PolicySource
from amopo_jax.run_spec import RunSpec
from amopo_jax.types import Params, RunFailure

Answer = Callable[[Sequence[TokenIds], Sequence[int], int], Generated]
"""`answer(prompts, numbers, size)`: to a batch of `size` rows, of which the first are the prompts'; numpy arrays."""


def make_answer(
  spec: RunSpec,
  source: PolicySource,
  params: Params,
  tokenizer: Tokenizer,
  mesh: Mesh,
  *,
  max_new: int,
  sampling: Sampling,
  seed: int,
) -> Answer:
  """Builds the function that answers a batch of prompts.

  Args:
    spec: says how the model computes.
    source: the policy.
    params: of it, on the mesh.
    tokenizer: says what ends a response.
    mesh: whose axes data and fsdp split the batch.
    max_new: most tokens of a response.
    sampling: how tokens are chosen.
    seed: of the draws; each response's are its own, by its number.

  Raises (the function):
    RunFailure: the policy's log-probabilities are not finite.
  """
  rows = NamedSharding(mesh, PartitionSpec(meshes.ROW_AXES))
  ends = tokenizer.end_tokens(source.hf_config.get("eos_token_id"))
  is_apart = meshes.each_has_all(params, mesh) and jax.process_count() == 1
  generate_fn = _make_generate_fn(spec, source, mesh, is_apart, max_new=max_new, ends=ends, sampling=sampling)
  # Devices that do not wait for each other may end minutes apart, and a CPU's collective gives up after one.
  run = meshes.jit_for(mesh, generate_fn, is_small=True, out_shardings=rows if is_apart else meshes.replicated(mesh))
  key_of = jax.jit(jax.vmap(partial(jax.random.fold_in, jax.random.key(seed))), out_shardings=rows)

  def answer(prompts: Sequence[TokenIds], numbers: Sequence[int], size: int) -> Generated:
    length = padded_length(max(map(len, prompts)))
    tokens, padding = np.zeros((size, length), np.int32), np.full(size, length - 1, np.int32)
    for row, prompt in zip(range(size), itertools.cycle(prompts), strict=False):  # fillers end when their originals do
      tokens[row, length - len(prompt) :], padding[row] = prompt, length - len(prompt)
    of_row = np.resize(np.asarray(numbers, np.int32), size)
    put = lambda x: jax.make_array_from_callback(x.shape, rows, lambda index: x[index])
    found = jax.tree.map(np.asarray, run(params, put(tokens), put(padding), key_of(put(of_row))))
    if not np.isfinite(found.sum_logp).all():
      raise RunFailure(f"{source.path}: its log-probabilities are not finite; look at the run that made it")
    return found

  return answer


def _make_generate_fn(
  spec: RunSpec,
  source: PolicySource,
  mesh: Mesh,
  is_apart: bool,
  *,
  max_new: int,
  ends: Sequence[int],
  sampling: Sampling,
) -> GenerateFn:
  """On whole batches; apart, each device goes on for its own rows until these have ended."""
  generate_fn = make_generate_fn(
    source.config,
    max_new=max_new,
    end_tokens=ends,
    sampling=sampling,
    compute_dtype=build.dtype("config.model.compute_dtype", spec.model.compute_dtype),
    attention_chunk=spec.model.attention_chunk,
    attend=build.build_attention(spec.model, source.config, mesh, is_whole=not is_apart).attend,
    constrain=identity if is_apart else meshes.make_constrain(mesh),
    is_apart=is_apart,
  )
  return meshes.apart(generate_fn, mesh) if is_apart else generate_fn

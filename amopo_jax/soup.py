"""Model soups: the weighted mean of the parameters of policies that began as the same one (arXiv 2203.05482).

One policy per dimension, mixed by weights, is what AMoPO's single policy is to be compared with (arXiv 2306.04488).
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp

from amopo_jax.data.tokenizer import Tokenizer, load_tokenizer
from amopo_jax.policy import PolicySource
from amopo_jax.types import InputError, Params


def soup_shares(weights: Sequence[float], count: int) -> list[float]:
  """The share of each of `count` policies; no weights: all alike.

  Raises:
    InputError: another number of weights, a negative or non-finite one, or nothing but zeros.
  """
  given = list(weights) or [1.0] * count
  if len(given) != count:
    raise InputError(f"--weights: {len(given)} for {count} runs; give one for each --workdir")
  if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not sum(given) > 0:
    raise InputError(f"--weights: {given} cannot be normalised; give numbers >= 0, at least one of them > 0")
  return [weight / sum(given) for weight in given]


def check_alike(sources: Sequence[PolicySource], tokenizer: Tokenizer) -> None:
  """Refuses policies whose parameters, or words, do not mean the same.

  Args:
    sources: the policies.
    tokenizer: of the first.

  Raises:
    InputError: one differs from the first.
  """
  for other in sources[1:]:
    if other.config != sources[0].config:
      raise InputError(f"{other.path}: another model than that of {sources[0].path}; only alike ones can be averaged")
    if load_tokenizer(other.tokenizer).fingerprint != tokenizer.fingerprint:
      raise InputError(
        f"{other.path}: another tokenizer than that of {sources[0].path}; only alike ones can be averaged"
      )


def mix(load: Callable[[PolicySource], Params], sources: Sequence[PolicySource], shares: Sequence[float]) -> Params:
  """The weighted mean, summed in float32; two policies are held at a time.

  Args:
    load: of one policy.
    sources: the policies.
    shares: of `soup_shares`.
  """
  if len(sources) == 1:
    return load(sources[0])
  first = load(sources[0])
  types = jax.tree.map(lambda leaf: leaf.dtype, first)
  scale = jax.jit(lambda params, share: jax.tree.map(lambda leaf: leaf.astype(jnp.float32) * share, params))
  add = jax.jit(lambda total, params: jax.tree.map(jnp.add, total, params), donate_argnums=0)
  rest = zip(sources[1:], shares[1:], strict=True)
  total = scale(first, shares[0])
  del first
  total = reduce(lambda total, one: add(total, scale(load(one[0]), one[1])), rest, total)
  return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), total, types)

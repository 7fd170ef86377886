"""What a run is made of between two steps: arrays, nothing else."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt32

from amopo_jax.types import Params


class TrainState(NamedTuple):
  """State of training after `step` steps; the functions that use it live in closures.

  Attributes:
    step: number of finished steps.
    params: the policy.
    opt_state: of optax.
    rng: key data from which the noise of step n is drawn as `fold_in(rng, n)`; never advanced.
    log_variances: learned weights of the contexts (`objective.uncertainty`); None where they are not learned.
  """

  step: Int[Array, ""]
  params: Params
  opt_state: optax.OptState
  rng: UInt32[Array, "2"]
  log_variances: Float[Array, " K"] | None = None


def init_state(params: Params, tx: optax.GradientTransformation, *, seed: int, learned_contexts: int = 0) -> TrainState:
  """The state before the first step.

  Args:
    params: initial policy.
    tx: optimizer, for its own initial state.
    seed: of the noise.
    learned_contexts: K where the contexts' weights are learned, else 0.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=tx.init(params),
    rng=jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
    log_variances=jnp.zeros(learned_contexts, jnp.float32) if learned_contexts else None,
  )


def abstract_state(
  params: Params, tx: optax.GradientTransformation, *, seed: int, learned_contexts: int = 0
) -> TrainState:
  """Shapes and types of `init_state`, without computing anything; `params` may be abstract."""
  make: Callable[[Params], TrainState] = lambda p: init_state(p, tx, seed=seed, learned_contexts=learned_contexts)
  return jax.eval_shape(make, params)


def digests(tree: Any) -> dict[str, int]:
  """A checksum of every array: the sum of its bits as unsigned words, modulo 2^32, whatever its sharding.

  Args:
    tree: of a state or of a part of one, on devices.

  Returns:
    Name of the leaf -> checksum.
  """
  sums = jax.device_get(_word_sums(tree))
  return {jax.tree_util.keystr(path): int(value) for path, value in jax.tree_util.tree_leaves_with_path(sums)}


@jax.jit
def _word_sums(tree: Any) -> Any:
  def word_sum(x: Array) -> Array:
    x = jax.device_put(x, jax.memory.Space.Device)  # from the memory of the hosts, if it is there
    is_words = jnp.issubdtype(x.dtype, jnp.unsignedinteger)  # 4-bit codes among them, which have no bytes of their own
    words = x if is_words else jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
    return jnp.sum(words.astype(jnp.uint32), dtype=jnp.uint32)

  return jax.tree.map(word_sum, tree)

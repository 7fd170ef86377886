"""What a run is made of between two steps: arrays, nothing else."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, UInt32

from amopo_jax.types import Params


class TrainState(NamedTuple):
  """State of training after `step` steps; the functions that use it live in closures.

  Attributes:
    step: number of finished steps.
    params: the policy.
    opt_state: of optax.
    rng: key data from which the noise of step n is drawn as `fold_in(rng, n)`; never advanced.
  """

  step: Int[Array, ""]
  params: Params
  opt_state: optax.OptState
  rng: UInt32[Array, "2"]


def init_state(params: Params, tx: optax.GradientTransformation, *, seed: int) -> TrainState:
  """The state before the first step.

  Args:
    params: initial policy.
    tx: optimizer, for its own initial state.
    seed: of the noise.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=tx.init(params),
    rng=jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
  )


def abstract_state(params: Params, tx: optax.GradientTransformation, *, seed: int) -> TrainState:
  """Shapes and types of `init_state`, without computing anything; `params` may be abstract."""
  make: Callable[[Params], TrainState] = lambda p: init_state(p, tx, seed=seed)
  return jax.eval_shape(make, params)

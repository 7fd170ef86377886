"""The train step and the evaluation step: pure functions of state and batch.

    noise   = normal(fold_in(rng, step))                       drawn once for the whole step, sliced with the batch
    grads   = sum over micro-batches of d objective(score_fn(params, rows), noise, pairs) / d params
    updates = tx(grads)

`PairInfo.weight` sums to 1 over the step, so the sum over micro-batches is the mean over pairs whatever the split.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt32

from amopo_jax.mesh import jit_for, replicated
from amopo_jax.metrics import MetricSums, metric_sums
from amopo_jax.objective import Conflict, LogVariances, Objective, Uncertainty, descend, resolve_conflict
from amopo_jax.state import TrainState
from amopo_jax.types import PAIR_MEMBERS, Batch, PackedRows, PairInfo, Params, ResponseMoments, Scalar

ScoreFn = Callable[[Params, PackedRows, int], ResponseMoments]
StepMetrics = dict[str, Any]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
Gradient = Callable[[Params, PackedRows, PairInfo, Array], tuple[Params, MetricSums]]


def draw_noise(
  rng: UInt32[Array, "2"], step: Int[Array, ""], shape: tuple[int, int, int, int]
) -> Float[Array, "A B K P"]:
  """The noise of one step, by its number alone: standard normal, the same for every split of the batch.

  Args:
    rng: key data of the state.
    step: number of finished steps.
    shape: micro-batches, pairs, contexts, members.
  """
  key = jax.random.fold_in(jax.random.wrap_key_data(rng, impl="threefry2x32"), step)
  micro, pairs, *rest = shape
  return jax.random.normal(key, (micro * pairs, *rest), jnp.float32).reshape(shape)


def make_train_step(
  score_fn: ScoreFn,
  objective: Objective,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
  *,
  conflict: Conflict | None = None,
  uncertainty: Uncertainty | None = None,
) -> TrainStep:
  """One optimizer step.

  Args:
    score_fn: (params, rows, number of pairs) -> moments.
    objective: (moments, noise, pairs) -> (loss, aux).
    tx: optimizer.
    schedule: the learning rate it follows, reported in the metrics.
    conflict: how the contexts' gradients become one; None: by their sum, in one backward pass instead of K.
    uncertainty: objective in the place of `objective` whose weights the step learns; None: nothing is learned there.

  Returns:
    `train_step(state, batch) -> (state, metrics)`; metrics hold `sums` (`MetricSums`), `grad_norm` (before
    clipping), `param_norm` and `learning_rate`. Not yet jitted.
  """

  gradient_of = partial(_context_gradients if conflict else _gradient, score_fn)

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
    micros, pairs, contexts = batch.pairs.is_ordered.shape
    noise = draw_noise(state.rng, state.step, (micros, pairs, contexts, len(PAIR_MEMBERS)))
    gradient = gradient_of(uncertainty.objective_at(_log_variances(state)) if uncertainty else objective)
    grads, sums = _sum_over_micro_batches(
      lambda micro: gradient(state.params, *micro), (batch.rows, batch.pairs, noise)
    )
    grads = resolve_conflict(grads, conflict) if conflict else grads
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      "sums": sums,
      # Behind a barrier: else XLA on a CPU shares the squares with AdamW by writing all of them to memory.
      "grad_norm": optax.tree.norm(jax.lax.optimization_barrier(grads)),
      "param_norm": optax.tree.norm(params),
      "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
    }
    if uncertainty:
      learned = descend(_log_variances(state), sums.losses, sums.counted, uncertainty.rate)
      state = state._replace(log_variances=learned)
    return state._replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

  return train_step


def _log_variances(state: TrainState) -> LogVariances:
  if state.log_variances is None:
    raise ValueError("the state has no log_variances to learn: make it with learned_contexts=K")
  return state.log_variances


def _gradient(score_fn: ScoreFn, objective: Objective) -> Gradient:
  def micro_loss(params: Params, rows: PackedRows, pairs: PairInfo, noise: Array) -> tuple[Scalar, MetricSums]:
    moments = score_fn(params, rows, pairs.weight.shape[0])
    loss, aux = objective(moments, noise, pairs)
    return loss, metric_sums(loss, aux, moments, pairs)

  return jax.grad(micro_loss, has_aux=True)


def _context_gradients(score_fn: ScoreFn, objective: Objective) -> Gradient:
  """Of the contexts' shares of the loss, stacked along a leading axis K; what is no context's is shared evenly."""

  def gradients(params: Params, rows: PackedRows, pairs: PairInfo, noise: Array) -> tuple[Params, MetricSums]:
    contexts = noise.shape[1]

    def shares(params: Params) -> tuple[Float[Array, " K"], MetricSums]:
      moments = score_fn(params, rows, pairs.weight.shape[0])
      loss, aux = objective(moments, noise, pairs)
      terms = jnp.sum(pairs.weight[:, None] * aux.alpha * aux.losses, axis=0)
      return terms + (loss - jnp.sum(terms)) / contexts, metric_sums(loss, aux, moments, pairs)

    _, pull, sums = jax.vjp(shares, params, has_aux=True)
    grads = [pull(one)[0] for one in jnp.eye(contexts, dtype=noise.dtype)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads), sums

  return gradients


def jit_train_step(train_step: TrainStep, state_shardings: TrainState, mesh: Mesh) -> TrainStep:
  """The compiled step: the new state takes the place of the old one, metrics are on every device.

  Args:
    train_step: of `make_train_step`.
    state_shardings: of the state, before and after.
    mesh: its devices.
  """
  return jit_for(mesh, train_step, donate_argnums=0, out_shardings=(state_shardings, replicated(mesh)))


def make_eval_step(score_fn: ScoreFn, objective: Objective) -> Callable[[Params, Batch], MetricSums]:
  """Statistics of a batch of held-out pairs: zero noise, no gradient.

  Args:
    score_fn: (params, rows, number of pairs) -> moments.
    objective: (moments, noise, pairs) -> (loss, aux).
  """

  def eval_step(params: Params, batch: Batch) -> MetricSums:
    def micro_sums(micro: tuple[PackedRows, PairInfo]) -> MetricSums:
      rows, pairs = micro
      moments = score_fn(params, rows, pairs.weight.shape[0])
      loss, aux = objective(moments, jnp.zeros_like(moments.length), pairs)
      return metric_sums(loss, aux, moments, pairs)

    return jax.tree.map(lambda x: jnp.sum(x, 0), jax.lax.map(micro_sums, (batch.rows, batch.pairs)))

  return eval_step


def make_moments_step(score_fn: ScoreFn) -> Callable[[Params, Batch], ResponseMoments]:
  """Moments of every response of a batch, micro-batches stacked along the axis of pairs."""

  def moments_step(params: Params, batch: Batch) -> ResponseMoments:
    score = lambda rows: score_fn(params, rows, batch.index.shape[1])
    moments = jax.lax.map(score, batch.rows)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), moments)

  return moments_step


def _sum_over_micro_batches(f: Callable[[Any], Any], micros: Any) -> Any:
  """Sum of f over the leading axis of `micros`, one at a time; a single one needs no accumulator."""
  first = jax.tree.map(lambda x: x[0], micros)
  if len(jax.tree.leaves(micros)[0]) == 1:
    return f(first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(f, first))
  add = lambda total, micro: (jax.tree.map(jnp.add, total, f(micro)), None)
  return jax.lax.scan(add, zeros, micros)[0]

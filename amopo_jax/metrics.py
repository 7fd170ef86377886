"""Sums and counts inside the step, names and means outside it.

Everything that is reported is a sum over pairs divided by a count of pairs, both taken over the whole step and all
devices, so no figure depends on how rows were packed, sharded or split into micro-batches.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amopo_jax.objective.amopo import Aux
from amopo_jax.types import CHOSEN, REJECTED, PairInfo, ResponseMoments, Scalar


class MetricSums(NamedTuple):
  """Additive statistics of some pairs; add two of them to get those of the union.

  Attributes:
    pairs: number of pairs.
    responses: per context and member, responses that were scored; what the objective does not look at is left out.
    compared: per context, pairs of which both were.
    ordered: per context, those of them whose dimension agrees that chosen > rejected.
    loss: sum over pairs of the objective.
    counted: per context, pairs whose term counts (the tie policy's say).
    losses: per context, sum of the unweighted losses of those.
    rewards: sum per context and member.
    margins: sum per context of chosen minus rejected reward, of the compared pairs.
    accuracies: per context, ordered pairs with a positive margin.
    alpha: sum of the weight of each context.
    logps: sum of mean log-probabilities, nats per token.
    tokens: scored tokens.
  """

  pairs: Scalar
  responses: Float[Array, "K P"]
  compared: Float[Array, " K"]
  ordered: Float[Array, " K"]
  loss: Scalar
  counted: Float[Array, " K"]
  losses: Float[Array, " K"]
  rewards: Float[Array, "K P"]
  margins: Float[Array, " K"]
  accuracies: Float[Array, " K"]
  alpha: Float[Array, " K"]
  logps: Float[Array, "K P"]
  tokens: Scalar


def metric_sums(loss: Scalar, aux: Aux, moments: ResponseMoments, pairs: PairInfo) -> MetricSums:
  """Statistics of one micro-batch.

  Args:
    loss: the micro-batch's share of the step's loss, that is, a sum over pairs of weight times loss.
    aux: of the objective.
    moments: of the policy.
    pairs: the annotations; places of weight 0 do not count.
  """
  real = (pairs.weight > 0).astype(jnp.float32)
  scored = real[:, None, None] * (moments.length > 0)
  compared = jnp.prod(scored, axis=-1)
  ordered = compared * pairs.is_ordered
  weight = jnp.max(pairs.weight, initial=0.0)
  return MetricSums(
    pairs=jnp.sum(real),
    responses=jnp.sum(scored, 0),
    compared=jnp.sum(compared, 0),
    ordered=jnp.sum(ordered, 0),
    loss=loss / jnp.where(weight > 0, weight, 1.0),
    counted=jnp.sum(aux.counts * real[:, None], 0),
    losses=jnp.sum(aux.losses * real[:, None], 0),
    rewards=jnp.sum(aux.rewards * scored, 0),
    margins=jnp.sum(aux.margins * compared, 0),
    accuracies=jnp.sum(ordered * (aux.margins > 0), 0),
    alpha=jnp.sum(aux.alpha * real[:, None], 0),
    logps=jnp.sum(aux.logps * scored, 0),
    tokens=jnp.sum(moments.length),
  )


def add(a: MetricSums, b: MetricSums) -> MetricSums:
  """Statistics of the union."""
  return jax.tree.map(lambda x, y: x + y, a, b)


def summarize(sums: MetricSums, contexts: Sequence[str], prefix: str = "") -> dict[str, float]:
  """Named means on the host (CONTRIBUTING.md, "Glossary").

  Args:
    sums: of any number of pairs; with no pair at all, every mean is NaN.
    contexts: names along K.
    prefix: "" or "eval_".

  Returns:
    `loss`, `rewards/{chosen,rejected,margins,accuracies}`, `logps/{chosen,rejected}` averaged over contexts, the
    same with `/<context>`, `loss/<context>` (unweighted, over the terms that count), `alpha/<context>`, and the
    counts `num_pairs`, `num_responses` (scored, of all contexts), `num_tokens` (of these) and `num_ordered/<context>`.
    An accuracy is a share of the latter, the pairs that the context's dimension orders; NaN where there is none, as are
    margins where no pair has both responses scored.
  """
  s = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
  mean = lambda total, count: np.divide(total, count, out=np.full_like(total, np.nan), where=np.asarray(count) > 0)
  rewards, logps = mean(s.rewards, s.responses), mean(s.logps, s.responses)
  by_context = {
    "rewards/chosen": rewards[:, CHOSEN],
    "rewards/rejected": rewards[:, REJECTED],
    "rewards/margins": mean(s.margins, s.compared),
    "rewards/accuracies": mean(s.accuracies, s.ordered),
    "logps/chosen": logps[:, CHOSEN],
    "logps/rejected": logps[:, REJECTED],
  }
  out = {"loss": float(mean(s.loss, s.pairs)), "num_pairs": float(s.pairs)}
  out |= {"num_responses": float(s.responses.sum()), "num_tokens": float(s.tokens)}
  out |= {name: _mean_of_known(values) for name, values in by_context.items()}
  out |= {f"{name}/{c}": float(v) for name, values in by_context.items() for c, v in zip(contexts, values, strict=True)}
  out |= {f"loss/{c}": float(v) for c, v in zip(contexts, mean(s.losses, s.counted), strict=True)}
  out |= {f"alpha/{c}": float(v) for c, v in zip(contexts, mean(s.alpha, s.pairs), strict=True)}
  out |= {f"num_ordered/{c}": float(v) for c, v in zip(contexts, s.ordered, strict=True)}
  return {prefix + name: value for name, value in out.items()}


def metric_names(contexts: Sequence[str], prefix: str = "") -> tuple[str, ...]:
  """The names that `summarize` gives to means; the counts, which say nothing of the policy, are not among them."""
  scalar, per_context, per_member = (), (len(contexts),), (len(contexts), 2)
  shapes = {name: scalar if name in ("pairs", "loss", "tokens") else per_context for name in MetricSums._fields}
  shapes |= dict.fromkeys(("responses", "rewards", "logps"), per_member)
  nothing: dict[str, Any] = {name: np.zeros(shape) for name, shape in shapes.items()}
  return tuple(
    name for name in summarize(MetricSums(**nothing), contexts, prefix) if not name.startswith(f"{prefix}num_")
  )


def finite(values: Mapping[str, float], names: Sequence[str]) -> bool:
  """Whether all of the named values are finite."""
  return all(np.isfinite(values[name]) for name in names)


def _mean_of_known(values: np.ndarray) -> float:
  known = values[~np.isnan(values)]
  return float(known.mean()) if known.size else float("nan")

"""From rewards to unreduced losses: one Bradley-Terry term per pair and context, and which terms count.

Annotators order a pair once, but a dimension may disagree with that order or be indifferent to it. A *tie
policy* says what becomes of such a term: `keep` (as released), `mask_ties`, `follow_dimension`, `mask_equal`. It is
a function `pair_info -> Order`, so that a policy of one's own needs no change here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.objective.moments import mean_logps
from amopo_jax.types import CHOSEN, REJECTED, PairInfo, ResponseMoments, Scalar


class Order(NamedTuple):
  """What a tie policy decides of every term.

  Attributes:
    sign: 1 to prefer the chosen response, -1 to prefer the rejected one.
    counts: 1 for a term of the loss, 0 for one that is dropped.
  """

  sign: Float[Array, "B K"]
  counts: Float[Array, "B K"]


TiePolicy = Callable[[PairInfo], Order]
"""What to do with the terms whose dimension does not order the pair as the annotators did."""


def rewards(moments: ResponseMoments, beta: float | Scalar) -> Float[Array, "B K P"]:
  """Implicit reward of each response in each context; no reference model takes part.

      rewards = β (1/|y|) Σ_t log π(y_t | x*_k, y_<t)

  Args:
    moments: sufficient statistics of the responses.
    beta: reward per nat of mean log-probability, > 0; may be traced.

  Returns:
    Rewards, ≤ 0; 0 for an empty place.

  Source: docs/method.md, "The objective": r_k(y).
  """
  return beta * mean_logps(moments)


def margins(rewards: Float[Array, "B K P"]) -> Float[Array, "B K"]:
  """How far the chosen response is ahead of the rejected one: `rewards[CHOSEN] − rewards[REJECTED]`."""
  return rewards[..., CHOSEN] - rewards[..., REJECTED]


def target_margins(
  target_margin: float | Scalar, gap_margin: float | Scalar, pair_info: PairInfo
) -> Float[Array, "B K"]:
  """What each margin has to exceed: more where the annotators saw a wider gap.

      γ_bk = γ + gap_margin · |score_gap_bk|

  Args:
    target_margin: γ, in reward units, ≥ 0; may be traced.
    gap_margin: additional margin of a pair at the two ends of the dimension's range, in reward units, ≥ 0; 0
      is the method as released. A context without a dimension has the gap 1.
    pair_info: the annotations.

  Returns:
    Target margins in reward units.

  Source: SimPO's γ (arXiv 2405.14734); the gap is an extension of this project (docs/method.md, deviation 6).
  """
  return target_margin + gap_margin * jnp.abs(pair_info.score_gap)


def preference_losses(
  margins: Float[Array, "B K"], target_margin: float | Scalar | Float[Array, "B K"]
) -> Float[Array, "B K"]:
  """One Bradley-Terry term per pair and context, unreduced.

  Computed as softplus, so that margins of ±1e4 neither overflow nor lose their gradient.

      losses = −log σ(margins − γ)

  Args:
    margins: reward of the preferred response minus that of the other.
    target_margin: γ in reward units, for all terms or for each.

  Returns:
    Negative log-likelihoods in nats, ≥ 0.

  Source: docs/method.md, "The objective": the terms of L.
  """
  return -jax.nn.log_sigmoid(margins - target_margin)


def sft_losses(moments: ResponseMoments) -> Float[Array, "B K"]:
  """Supervised loss of the annotators' chosen response in each context, unreduced.

      losses = −(1/|y_w|) Σ_t log π(y_w,t | x*_k, y_w,<t)

  Args:
    moments: sufficient statistics of the responses.

  Returns:
    Nats per token, ≥ 0; 0 for an empty place.
  """
  return -mean_logps(moments)[..., CHOSEN]


def keep(pair_info: PairInfo) -> Order:
  """Every term counts in the annotators' order, ties and inversions too: as released."""
  ones = jnp.ones_like(pair_info.score_gap)
  return Order(sign=ones, counts=ones)


def mask_ties(pair_info: PairInfo) -> Order:
  """Only terms whose dimension agrees that chosen > rejected count; ties and inversions are dropped."""
  gap = pair_info.score_gap
  return Order(sign=jnp.ones_like(gap), counts=jnp.asarray(pair_info.is_ordered, gap.dtype))


def follow_dimension(pair_info: PairInfo) -> Order:
  """Each dimension's own order: an inversion (`score_gap < 0`) prefers the rejected one, a tie is dropped."""
  gap = pair_info.score_gap
  return Order(sign=jnp.where(gap < 0, -1.0, jnp.ones_like(gap)), counts=jnp.asarray(gap != 0, gap.dtype))


def mask_equal(pair_info: PairInfo) -> Order:
  """The pair's order wherever the dimension's scores differ, whichever of them is higher; equal ones are dropped.

  For pairs whose contexts ask for the scores of the chosen response, high or low (the rule `both_ways`): what was
  asked for is preferred, as in controllable preference optimisation (arXiv 2402.19085).
  """
  gap = pair_info.score_gap
  return Order(sign=jnp.ones_like(gap), counts=jnp.asarray(gap != 0, gap.dtype))


TIE_POLICIES: dict[str, TiePolicy] = {
  "keep": keep,
  "mask_ties": mask_ties,
  "follow_dimension": follow_dimension,
  "mask_equal": mask_equal,
}
"""The policies by the name a config gives them."""

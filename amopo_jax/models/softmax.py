"""The softmax of logits that come a block of words at a time (arXiv 1805.02867)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Softmax(NamedTuple):
  """What is known of the softmax of N tokens after some words of each of T vocabulary shards.

  Attributes:
    top: largest logit.
    total: sum of the exponentials of logits less `top`.
    target: logit of the target, 0 until it came.
  """

  top: Float[Array, "T *N"]
  total: Float[Array, "T *N"]
  target: Float[Array, "T *N"]

  @classmethod
  def empty(cls, shape: tuple[int, ...]) -> "Softmax":
    """Before the first word; shape: T and N."""
    zeros = jnp.zeros(shape, jnp.float32)
    return cls(jnp.full_like(zeros, -jnp.inf), zeros, zeros)

  def add(
    self, logits: Float[Array, "T words *N"], is_fresh: Bool[Array, "..."], is_target: Bool[Array, "T words *N"]
  ) -> "Softmax":
    """With the logits of more words.

    Args:
      logits: of the words.
      is_fresh: False for a word that was there before, to be broadcast.
      is_target: True where a word is the target, and fresh.
    """
    top = jnp.maximum(self.top, jnp.max(logits, axis=1))
    shares = jnp.where(is_fresh, jnp.exp(logits - top[:, None]), 0.0)
    return Softmax(
      top=top,
      total=self.total * jnp.exp(self.top - top) + jnp.sum(shares, axis=1),
      target=self.target + jnp.sum(jnp.where(is_target, logits, 0.0), axis=1),
    )

  def finish(self) -> tuple[Float[Array, "*N"], Float[Array, "*N"]]:
    """Log-probability of the target and logsumexp, over all vocabulary shards."""
    lse = jax.nn.logsumexp(self.top + jnp.log(self.total), axis=0)
    return jnp.sum(self.target, axis=0) - lse, lse

"""A compromise between the contexts' gradients: CAGrad with the clipping of RACO, from their products alone.

With g_k the gradient of context k's loss, w_k its weight, g_0 = Σ_k w_k g_k and c in [0, 1):

    p  = argmin over p ≥ 0, Σ_k p_k = 1 of ⟨Σ_k p_k g_k, g_0⟩ + c ‖g_0‖ ‖Σ_k p_k g_k‖
    p̃  = min(p, w)
    d  = g_0 + c ‖g_0‖ Σ_k p̃_k g_k / ‖Σ_k p̃_k g_k‖

so that of all directions within c ‖g_0‖ of g_0, d is about the one whose worst context improves most; clipped, no
context gets more than its weight. All of it needs the products ⟨g_i, g_j⟩ only, a K by K matrix.

Source: CAGrad (arXiv 2110.14048), RACO (arXiv 2602.02495; released code PeterLauLukChen/RACO at 420e349).
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amopo_jax.types import InputError, Params

_RIDGE = 1e-6
"""Added to the products' diagonal, as a share of its mean: gradients that depend on each other make it singular."""

MOST_CONTEXTS = 8
"""K beyond which the 2^K - 1 faces of the simplex are too many."""


class Conflict(NamedTuple):
  """How the contexts' gradients become one.

  Attributes:
    weights: w, one positive weight per context; sum 1.
    radius: c, in [0, 1).
  """

  weights: tuple[float, ...]
  radius: float


def resolve_conflict(grads: Params, conflict: Conflict) -> Params:
  """The direction d.

  Args:
    grads: of each context's weighted loss, w_k g_k, so that their sum is g_0; every leaf has a leading axis K.
    conflict: weights and radius.

  Returns:
    The tree without that axis, in its types.
  """
  weights = jnp.asarray(conflict.weights, jnp.float32)
  inner = lambda leaf: jnp.tensordot(
    leaf, leaf, axes=(tuple(range(1, leaf.ndim)),) * 2, preferred_element_type=jnp.float32
  )
  weighted = sum(map(inner, jax.tree.leaves(grads)))
  products = weighted / (weights[:, None] * weights[None, :])
  factors = conflict_coefficients(products, weights, conflict.radius) / weights
  return jax.tree.map(lambda leaf: jnp.tensordot(factors.astype(leaf.dtype), leaf, axes=1), grads)


def conflict_coefficients(
  products: Float[Array, "K K"], weights: Float[Array, " K"], radius: float
) -> Float[Array, " K"]:
  """Factors of the contexts' gradients whose sum is the direction d.

  Args:
    products: ⟨g_i, g_j⟩.
    weights: w, positive, sum 1.
    radius: c, in [0, 1); 0 gives the weights themselves.

  Returns:
    Non-negative factors of g_k.
  """
  scale = jnp.maximum(jnp.trace(products), jnp.finfo(products.dtype).tiny)
  scaled = products / scale
  length = _norm(scaled, weights)
  share = jnp.minimum(nearest_conflict(scaled, weights, radius), weights)
  step = _norm(scaled, share)
  return weights + jnp.where(step > 0, radius * length / jnp.where(step > 0, step, 1.0), 0.0) * share


def nearest_conflict(products: Float[Array, "K K"], weights: Float[Array, " K"], radius: float) -> Float[Array, " K"]:
  """p, exactly: the objective is convex, and on each face of the simplex its minimum solves a quadratic equation.

  Where p is positive on a face S alone, with H the products, b = H w and s = c ‖g_0‖, the conditions of Karush, Kuhn
  and Tucker are H_S p ∝ ν 1 - b_S and (ν 1 - b_S)ᵀ H_S⁻¹ (ν 1 - b_S) = s²; ν is then the objective's value.

  Args:
    products: of order 1.
    weights: w.
    radius: c.

  Returns:
    Non-negative, sums to 1.
  """
  number = products.shape[0]
  ridge = products + _RIDGE / number * jnp.eye(number, dtype=products.dtype)
  slope, reach = products @ weights, radius * _norm(products, weights)
  found = [jnp.eye(number, dtype=products.dtype)]
  for size in range(2, number + 1):
    faces = np.asarray(list(itertools.combinations(range(number), size)))
    found.append(_on_faces(ridge, slope, reach, faces))
  points = jnp.concatenate(found)
  values = points @ slope + reach * jnp.sqrt(jnp.maximum(jnp.einsum("ni,ij,nj->n", points, products, points), 0.0))
  return points[jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))]


def check_radius(radius: float, num_contexts: int) -> None:
  """Refuses a radius outside of [0, 1), and too many contexts."""
  if not 0 <= radius < 1 or math.isnan(radius):
    raise InputError(f"config.objective.conflict_radius: {radius:g} is not in [0, 1); 0 takes gradients as they are")
  if radius and num_contexts > MOST_CONTEXTS:
    raise InputError(
      f"config.objective.conflict_radius: {num_contexts} contexts; with more than {MOST_CONTEXTS} set it to 0"
    )


def _on_faces(
  products: Float[Array, "K K"], slope: Float[Array, " K"], reach: Float[Array, ""], faces: np.ndarray
) -> Float[Array, "faces K"]:
  """The point of each face where the objective is stationary; NaN where there is none within it."""
  within, on_face = products[faces[:, :, None], faces[:, None, :]], slope[faces]
  solved = jnp.linalg.solve(within, jnp.stack([jnp.ones_like(on_face), on_face], axis=-1))
  ones, slopes = solved[..., 0], solved[..., 1]
  a, b, c = (jnp.sum(x, axis=-1) for x in (ones, slopes, on_face * slopes))
  root = jnp.sqrt(b**2 - a * (c - reach**2))  # NaN where no value is stationary
  point = ((b + root) / a)[:, None] * ones - slopes
  point = jnp.where(jnp.all(point > 0, axis=-1, keepdims=True), point, jnp.nan)
  point = point / jnp.sum(point, axis=-1, keepdims=True)
  places = jnp.zeros((len(faces), products.shape[0]), products.dtype)
  return places.at[jnp.arange(len(faces))[:, None], faces].set(point)


def _norm(products: Float[Array, "K K"], factors: Float[Array, " K"]) -> Float[Array, ""]:
  """‖Σ_k factors_k g_k‖."""
  return jnp.sqrt(jnp.maximum(factors @ products @ factors, 0.0))

"""What the tests of objective/ share: random responses token by token, with their statistics in float64
NumPy.

The oracles never see `ResponseMoments`: they start from the tokens' log-probabilities, as docs/method.md does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from amopo_jax.types import PairInfo, ResponseMoments


@dataclass(frozen=True)
class Responses:
  """Ragged log-probabilities: `tokens[b][k][p]` is the float64 vector of one response in one context."""

  tokens: list[list[list[np.ndarray]]]

  def each(self, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
    """The statistic of every response [B K P]; 0 for an empty one."""
    return np.array(
      [[[statistic(logps) if len(logps) else 0.0 for logps in pair] for pair in row] for row in self.tokens]
    )

  @property
  def mean_logps(self) -> np.ndarray:
    return self.each(np.mean)

  @property
  def mean_probs(self) -> np.ndarray:
    return self.each(lambda logps: np.mean(np.exp(logps)))

  @property
  def std_probs(self) -> np.ndarray:
    return self.each(lambda logps: np.std(np.exp(logps), ddof=1) if len(logps) > 1 else 0.0)

  def moments(self, dtype: type = np.float32) -> ResponseMoments:
    """The sums that the model's head would give."""
    sums = (len, np.sum, lambda logps: np.sum(np.exp(logps)), lambda logps: np.sum(np.exp(2 * logps)))
    return ResponseMoments(*(jax.numpy.asarray(self.each(each), dtype) for each in sums))


def random_responses(
  seed: int,
  batch: int,
  contexts: int,
  *,
  min_length: int = 1,
  max_length: int = 9,
  empty: tuple[int, ...] = (),
) -> Responses:
  """Lengths min_length..max_length, log-probabilities from 0 to far below float32's resolution of 1 − p."""
  rng = np.random.default_rng(seed)

  def response(b: int) -> np.ndarray:
    length = 0 if b in empty else rng.integers(min_length, max_length + 1)
    return -rng.gamma(0.7, 2.0, size=length)

  return Responses([[[response(b) for _ in range(2)] for _ in range(contexts)] for b in range(batch)])


def random_pairs(
  seed: int, batch: int, contexts: int, *, empty: tuple[int, ...] = (), dtype: type = np.float32
) -> PairInfo:
  """Ordered, tied and inverted dimensions; the last context has no dimension if there are several."""
  rng = np.random.default_rng(seed + 1)
  gap = rng.choice([-0.5, 0.0, 0.25, 1.0], size=(batch, contexts))
  gap[:, contexts - 1] = 1.0 if contexts > 1 else gap[:, 0]
  is_real = np.array([b not in empty for b in range(batch)])
  weight = is_real / max(is_real.sum(), 1)
  return PairInfo(jax.numpy.asarray(gap > 0), jax.numpy.asarray(gap, dtype), jax.numpy.asarray(weight, dtype))


def random_noise(seed: int, batch: int, contexts: int, dtype: type = np.float32) -> jax.Array:
  """Standard normal draws [B K P]."""
  return jax.numpy.asarray(np.random.default_rng(seed + 2).normal(size=(batch, contexts, 2)), dtype)


@pytest.fixture(scope="session")
def make_responses() -> Callable[..., Responses]:
  return random_responses


@pytest.fixture(scope="session")
def responses_of() -> type[Responses]:
  """Makes `Responses` from hand-written log-probabilities."""
  return Responses


@pytest.fixture(scope="session")
def make_pairs() -> Callable[..., PairInfo]:
  return random_pairs


@pytest.fixture(scope="session")
def make_noise() -> Callable[..., jax.Array]:
  return random_noise


@pytest.fixture
def x64():
  """Float64 for one test."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def central_differences(x64) -> Callable[..., np.ndarray]:
  """Numeric gradient of a scalar function, in float64, which has the digits to lose."""

  def gradient(fn: Callable[[jax.Array], jax.Array], at: jax.Array, step: float = 1e-5) -> np.ndarray:
    moves = step * np.eye(at.size).reshape(at.size, *at.shape)
    ahead, behind = (jax.jit(jax.vmap(fn))(at[None] + sign * moves) for sign in (1.0, -1.0))
    return np.asarray(ahead - behind).reshape(at.shape) / (2 * step)

  return gradient


@pytest.fixture(autouse=True)
def strict_promotion():
  with jax.numpy_dtype_promotion("strict"):
    yield

"""The words every room shares: axis legend, array aliases, the batch and the moments.

Axis legend (binding, see CONTRIBUTING.md):

    B pairs            K contexts                      P pair member (CHOSEN = 0, REJECTED = 1)
    A micro-batches    R packed rows                   S row length, tokens
    V vocabulary       D model width                   T scored tokens

Arrays may be jax or numpy: the host builds them in numpy, the step sees them as jax arrays.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int, Shaped

SMALL_FILES = ["*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt", "vocab.txt"]
"""Patterns of a Hugging Face repository's files that hold no weights: config and tokenizer."""

CHOSEN, REJECTED = 0, 1
"""Index of the chosen and of the rejected response along the axis P."""

PAIR_MEMBERS = ("chosen", "rejected")
"""Names along the axis P."""

NO_SLOT = -1
"""Value of `PackedRows.slot` for a token that is not scored."""


class InputError(ValueError):
  """Something a user gave cannot be used: one line with the place, the reason and the remedy.

  The command line prints the message alone and exits with status 2, without a traceback.
  """


class RunFailure(RuntimeError):
  """A run that cannot go on, through nobody's typing error: one line with the place, the reason and the remedy.

  The command line prints the message alone and exits with status 1.
  """


class PackedRows(NamedTuple):
  """Token rows in depth-first trie order: the one layout of this system (`data/trie.py`).

  Token i may attend to token j exactly if `j <= i < subtree_end[j]`. Padding has `subtree_end = 0`, so that
  nothing attends to it, `parent = 0` and `slot = NO_SLOT`.

  Attributes:
    tokens: vocabulary index.
    positions: depth in the trie, 0 for the first token of a prompt; the rotary position.
    subtree_end: one past the last descendant, an index into the row.
    parent: index in the row of the token whose hidden state predicts this one; 0 where there is none.
    slot: the response this token is scored for, `(pair * K + context) * 2 + member`, or NO_SLOT.
  """

  tokens: Int[Array, "*A R S"]
  positions: Int[Array, "*A R S"]
  subtree_end: Int[Array, "*A R S"]
  parent: Int[Array, "*A R S"]
  slot: Int[Array, "*A R S"]


class PairInfo(NamedTuple):
  """What is known of each pair beforehand; nothing of this depends on the policy that is trained.

  Attributes:
    is_ordered: the dimension's scores agree that chosen > rejected; True for a context without a dimension.
    score_gap: (chosen score - rejected score) / (high - low), in [-1, 1]; 1 for a context without a dimension.
    weight: share of the pair in the loss: 1 / (pairs of the whole step), 0 for an empty place. Sums to 1 over a
      step, so that a sum over micro-batches of weighted sums is the mean over pairs.
    reference: sum of the log-probabilities of each response under a reference policy, nats; None where the objective
      needs none, 0 at an empty place.
    wanted: how much each context matters to the turn that the pair answers, ≥ 0, not all 0; None: all alike.
  """

  is_ordered: Bool[Array, "*A B K"]
  score_gap: Float[Array, "*A B K"]
  weight: Float[Array, "*A B"]
  reference: Float[Array, "*A B K P"] | None = None
  wanted: Float[Array, "*A B K"] | None = None


class Batch(NamedTuple):
  """All micro-batches of one step.

  Attributes:
    rows: the tokens.
    pairs: the annotations.
    index: number of the pair in its data set, -1 for an empty place.
  """

  rows: PackedRows
  pairs: PairInfo
  index: Int[Array, "*A B"]


class ResponseMoments(NamedTuple):
  """Sufficient statistics of a response's token probabilities, whatever the layout they were computed in.

  With log-probabilities l_t of the response's tokens (end of turn included) and p_t = exp(l_t):

  Attributes:
    length: number of tokens, as a float; 0 for an empty place and for a response that is not laid out.
    sum_logp: sum of l_t, nats.
    sum_p: sum of p_t.
    sum_p2: sum of p_t^2.
  """

  length: Float[Array, "B K P"]
  sum_logp: Float[Array, "B K P"]
  sum_p: Float[Array, "B K P"]
  sum_p2: Float[Array, "B K P"]


Noise = Float[Array, "B K P"]
"""Standard normal draws, one per context and response; zero switches the sampling of alpha off."""

Alpha = Float[Array, "B K"]
"""Weights over contexts: non-negative, rows sum to 1, constant under differentiation."""

Params = dict
"""Pure nested dict of arrays: the policy's parameters."""

Scalar = Shaped[Array, ""]
"""A zero-dimensional array."""

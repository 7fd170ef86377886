"""Analytic count of one train step's operations: products only, two per multiply-add, backward twice the forward.

    layers     2 · tokens · L · (D (H + 2G) Dh + H Dh D + 3 D F)
    attention  4 · attended · L · H Dh                    scores and values, of the pairs that see each other
    head       2 · head_tokens · D V

A library that computes masked-out blocks does more than is counted here; that is its loss.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.peers.serve import Counts

BACKWARD = 2


class Flops(NamedTuple):
  """Operations of one step.

  Attributes:
    model: forward and backward.
    executed: and what the backward pass computes a second time.
  """

  model: float
  executed: float


def parts(fields: Mapping[str, Any], counts: Counts) -> dict[str, float]:
  """Operations of one forward pass by part.

  Args:
    fields: of a Hugging Face config.json.
    counts: what passes through.
  """
  width, layers = fields["hidden_size"], fields["num_hidden_layers"]
  heads, groups = fields["num_attention_heads"], fields["num_key_value_heads"]
  inner = heads * fields.get("head_dim", width // heads)
  kernels = width * (inner + 2 * inner * groups // heads) + inner * width + 3 * width * fields["intermediate_size"]
  return {
    "layers": 2.0 * counts.tokens * layers * kernels,
    "attention": 4.0 * counts.attended * layers * inner,
    "head": 2.0 * counts.head_tokens * width * fields["vocab_size"],
  }


def step_flops(fields: Mapping[str, Any], counts: Counts) -> Flops:
  """Operations of one step.

  Args:
    fields: of a Hugging Face config.json.
    counts: what passes through, and what is recomputed.
  """
  forward = parts(fields, counts)
  model = (1 + BACKWARD) * sum(forward.values())
  down = 2.0 * counts.tokens * fields["num_hidden_layers"] * fields["hidden_size"] * fields["intermediate_size"]
  again = {
    "layers": forward["layers"] - down,  # nothing needs the last product's result again
    "attention": forward["attention"],
    "scores": forward["attention"] / 2,
    "head": forward["head"] * counts.head_recomputed,
  }
  return Flops(model, model + sum(again[name] for name in counts.recomputed))

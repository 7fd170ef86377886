"""From what a step costs to what a run takes: a roofline, and the assumptions it stands on.

Products, memory, links and network each take their bytes or operations over the chip's published peak. If all of them
overlap perfectly, a step takes the longest of the four times; without any overlap, their sum. No step is faster than
the first, and a good program is nearer to it than to the second.

Attention is the part that the compiler does not count: its kernels visit blocks of keys that depend on the data. What
a query sees and visits is taken from UltraFeedback (docs/numerics.md, "Blocks outside the tries").
"""

import math
from typing import NamedTuple

from amopo_jax.models.config import ModelConfig
from amopo_jax.plan.chips import Chip
from amopo_jax.plan.cost import Cost
from amopo_jax.run_spec import RunSpec

TOKENS_PER_CONTEXT, SCORED_SHARE, PAIRS = 800, 0.64, 10_000
"""Tokens of a pair in one context, laid out as a trie, and the share of them that the head takes: UltraFeedback with
the Qwen2.5 tokenizer in four contexts (docs/results). Pairs of the released recipe, at most (docs/method.md)."""

_SEEN, _VISITED, _MARGIN = 377, 960, 128
"""Keys that a query sees, that the kernels visit for it in blocks of 256, and what blocks add to a causal half."""

_FORWARD, _BACKWARD = 2, 7
"""Matrix products of the attention kernels' passes, counting the scores that the backward pass computes twice again."""

_ATTENTION_AGAIN = ("dots_no_batch", "full")
"""Remat policies under which the backward pass runs the forward kernel once more."""


class Workload(NamedTuple):
  """What is assumed of the data, which a plan does not read.

  Attributes:
    tokens_per_pair: that a pair takes of the rows, in all contexts.
    scored_share: of the tokens, those that the head takes.
    pairs: that an epoch trains on.
  """

  tokens_per_pair: float
  scored_share: float
  pairs: int


class Estimate(NamedTuple):
  """What a run takes; ranges are (everything overlaps, nothing does).

  Attributes:
    pairs_per_step: of the whole mesh.
    model_flops: operations of one step on one chip that the method asks for: forward, and twice that backward.
    attention_flops: of the kernels, in one step on one chip, beside what the compiler counts.
    seconds: of one step by resource.
    bound: the resource that takes longest.
    step_seconds: of one step.
    utilization: model_flops over what the chip could do in that time (MFU).
    pairs_per_second: of the whole mesh.
    steps: of the run.
    hours: of the run's steps; evaluation, checkpoints and compilation are not in it.
    chip_hours: hours times chips.
  """

  pairs_per_step: float
  model_flops: float
  attention_flops: float
  seconds: dict[str, float]
  bound: str
  step_seconds: tuple[float, float]
  utilization: tuple[float, float]
  pairs_per_second: tuple[float, float]
  steps: int
  hours: tuple[float, float]
  chip_hours: tuple[float, float]


def assume(spec: RunSpec, *, tokens_per_pair: float = 0.0, scored_share: float = 0.0, pairs: int = 0) -> Workload:
  """The workload of a config; what is 0 is as measured on UltraFeedback, and as many pairs as the recipe takes.

  Args:
    spec: for the number of contexts that a step sees of a pair, and the share that is held out.
    tokens_per_pair, scored_share: as in `Workload`.
    pairs: records before any are held out.
  """
  tokens = tokens_per_pair or TOKENS_PER_CONTEXT * (spec.data.contexts_per_pair or len(spec.data.contexts))
  held_out = 0.0 if spec.data.heldout else spec.data.heldout_fraction
  return Workload(tokens, scored_share or SCORED_SHARE, round((pairs or PAIRS) * (1 - held_out)))


def estimate(
  spec: RunSpec, config: ModelConfig, cost: Cost, chip: Chip, num_chips: int, workload: Workload
) -> Estimate:
  """The times of a step and of a run.

  Args:
    spec: the config, for rows and epochs.
    config: the decoder.
    cost: of one step on one chip, as the compiler counts it.
    chip: its peaks.
    num_chips: of the mesh.
    workload: what is assumed of the data.
  """
  tokens = spec.batch.rows * spec.batch.row_length
  pairs = tokens / workload.tokens_per_pair
  attention = attention_flops(spec, config, tokens) / num_chips
  seconds = {
    "products": (cost.flops + attention) / chip.flops,
    "memory": cost.memory_bytes / chip.memory_rate,
    "links": cost.link_bytes / chip.link_rate,
    "network": cost.network_bytes / chip.network_rate,
  }
  times = max(seconds.values()), sum(seconds.values())
  asked = model_flops(spec, config, tokens, tokens * workload.scored_share) / num_chips
  steps = spec.train.steps or math.ceil(spec.train.epochs * workload.pairs / pairs)
  hours = steps * times[0] / 3600, steps * times[1] / 3600
  return Estimate(
    pairs_per_step=pairs,
    model_flops=asked,
    attention_flops=attention,
    seconds=seconds,
    bound=max(seconds, key=lambda name: seconds[name]),
    step_seconds=times,
    utilization=(asked / chip.flops / times[0], asked / chip.flops / times[1]),
    pairs_per_second=(pairs / times[0], pairs / times[1]),
    steps=steps,
    hours=hours,
    chip_hours=(hours[0] * num_chips, hours[1] * num_chips),
  )


def model_flops(spec: RunSpec, config: ModelConfig, tokens: float | int, scored: float | int) -> float:
  """Products of a forward pass and of its backward pass, two operations per multiply-add, nothing computed twice.

  Args:
    spec: the config: what a query sees is bounded by its row, and kernels that are frozen need no gradient.
    config: the decoder.
    tokens: of a step.
    scored: those that the head takes.
  """
  inner, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
  kernels = config.width * (2 * inner + 2 * keys) + 3 * config.width * config.mlp_width
  layers = 2 * tokens * config.num_layers * kernels
  attention = _FORWARD * _product(config, tokens, min(_SEEN, spec.batch.row_length / 2))
  return 3 * attention + passes(spec) * (layers + 2 * scored * config.width * config.vocab_size)


def passes(spec: RunSpec) -> int:
  """Products for each one of the forward pass: itself, the gradient of its input and, if trained, of its kernel."""
  return 2 if spec.lora.rank else 3


def backward_passes(spec: RunSpec) -> int:
  """Of a micro-batch: one, or one per context where their gradients meet."""
  return len(spec.data.contexts) if spec.objective.conflict_radius else 1


def attention_flops(spec: RunSpec, config: ModelConfig, tokens: int) -> float:
  """Operations of the attention kernels in one step."""
  again = _FORWARD if spec.model.remat in _ATTENTION_AGAIN else 0
  visited = min(_VISITED, spec.batch.row_length / 2 + _MARGIN)
  return (_FORWARD + backward_passes(spec) * (_BACKWARD + again)) * _product(config, tokens, visited)


def _product(config: ModelConfig, tokens: float | int, keys: float | int) -> float:
  """Of queries and keys, or of probabilities and values, in all layers."""
  return 2.0 * tokens * keys * config.num_layers * config.num_heads * config.head_dim

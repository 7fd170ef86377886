"""Statistics of held-out pairs: loss, rewards, margins and accuracies per context."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pipeline import make_stream
from amopo_jax.feed import Feed, FeedSpec
from amopo_jax.metrics import MetricSums, add
from amopo_jax.stopping import StopRequest
from amopo_jax.types import Batch, Params


class Evaluated(NamedTuple):
  """What an evaluation found.

  Attributes:
    sums: over all pairs, on the host; None without pairs, or if it was stopped on the way.
    is_stopped: whether a process was asked to stop.
  """

  sums: MetricSums | None
  is_stopped: bool


def evaluate(
  eval_step: Callable[[Params, Batch], MetricSums],
  params: Params,
  datasets: Sequence[PairDataset],
  *,
  pack: PackSpec,
  layout: FeedSpec,
  stop: StopRequest,
  most: int = 0,
  reference: np.ndarray | None = None,
  progressed: Callable[[], None] = lambda: None,
) -> Evaluated:
  """One pass over every held-out pair, each exactly once.

  Args:
    eval_step: jitted; of `step.make_eval_step`.
    params: the policy.
    datasets: held-out pairs.
    pack, layout: shape of a batch and of the step, those of training, so that nothing compiles anew.
    stop: looked at before every batch.
    most: batches to look at; 0: all.
    reference: of all pairs, as of `collate`.
    progressed: hears of every batch.
  """
  total, count = None, 0
  for dataset in datasets:
    stream = make_stream(
      [dataset],
      pack,
      seed=0,
      num_epochs=1,
      num_streams=layout.num_streams,
      owned=layout.owned,
      num_workers=0,
      shuffle=False,
    )
    feed = Feed(stream, layout, stop, reference)
    for batch in feed:
      if most and count == most:
        break
      count += 1
      sums = eval_step(params, batch)
      total = sums if total is None else add(total, sums)
      progressed()
    if feed.is_stopped:
      return Evaluated(None, True)
  return Evaluated(jax.device_get(total), False)

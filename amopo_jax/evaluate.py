"""Statistics of held-out pairs: loss, rewards, margins and accuracies per context."""

from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pipeline import make_stream
from amopo_jax.mesh import place_batch
from amopo_jax.metrics import MetricSums, add
from amopo_jax.stopping import StopRequest
from amopo_jax.types import Batch, Params


def evaluate(
  eval_step: Callable[[Params, Batch], MetricSums],
  params: Params,
  datasets: Sequence[PairDataset],
  *,
  pack: PackSpec,
  num_streams: int,
  accumulation: int,
  mesh: Mesh,
  stop: StopRequest,
  most: int = 0,
) -> MetricSums | None:
  """One pass over every held-out pair, each exactly once.

  Args:
    eval_step: jitted; of `step.make_eval_step`.
    params: the policy.
    datasets: held-out pairs.
    pack, num_streams, accumulation: shape of a batch, that of training, so that nothing compiles anew.
    mesh: where the batch goes.
    stop: looked at before every batch.
    most: batches to look at; 0: all.

  Returns:
    Host sums over all pairs; None if it was asked to stop on the way.
  """
  total, count = None, 0
  for dataset in datasets:
    stream = make_stream(
      [dataset],
      pack,
      seed=0,
      num_epochs=1,
      num_streams=num_streams,
      owned=range(num_streams),
      num_workers=0,
      shuffle=False,
    )
    for groups in stream:
      if stop:
        return None
      if most and count == most:
        break
      count += 1
      batch = place_batch(collate(groups, accumulation=accumulation, num_pairs=count_pairs(groups)), mesh)
      sums = eval_step(params, batch)
      total = sums if total is None else add(total, sums)
  return jax.device_get(total)

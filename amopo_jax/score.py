"""`amopo score`: the moments of every response under every context, one JSON line each."""

import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from amopo_jax import build
from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.pipeline import make_stream
from amopo_jax.mesh import place_batch
from amopo_jax.models.transformer import abstract_params
from amopo_jax.objective import mean_probs, rewards, std_probs
from amopo_jax.policy import find_policy, load_policy
from amopo_jax.run_spec import RunSpec
from amopo_jax.step import make_moments_step
from amopo_jax.types import PAIR_MEMBERS, InputError, ResponseMoments


def score(spec: RunSpec, out: str, *, step: int | None = None) -> int:
  """Scores the pairs of `spec.data.train` with the policy at `spec.model.path`.

  Args:
    spec: says model, data, contexts, batch and β; its training parts are not used.
    out: JSONL file to write, local or gs://; appears under its name when it is complete.
    step: checkpoint of a workdir; None: the newest.

  Returns:
    Number of lines. Each has `record`, `context`, `response` (chosen or rejected), `length` (tokens, end of turn
    included), `sum_logp` (nats), `mean_p`, `std_p`, `reward` (β times the mean log-probability) and `pair`, which
    numbers the pairs of a record.

  Raises:
    InputError: anything wrong with the model, the data or the place to write to.
  """
  path = epath.Path(out)
  if not path.parent.exists():
    raise InputError(f"{out}: the folder {path.parent} does not exist; make it, or choose another --out")
  mesh = build.build_mesh(spec)
  source = find_policy(spec.model.path, dict(spec.model.arch), step=step)
  score_fn = build.build_score_fn(spec.model, source.config, len(spec.data.contexts), mesh)
  data = build.build_data(spec, source)
  dtype = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  shardings = build.param_shardings(spec, abstract_params(source.config, dtype), mesh)
  params = load_policy(source, dtype=dtype, shardings=shardings)
  moments_step = jax.jit(make_moments_step(score_fn))
  fresh, count = path.with_name(path.name + ".new"), 0
  with fresh.open("w") as file:
    for index, moments in _in_order(spec, data, mesh, lambda batch: moments_step(params, batch)):
      for line in _lines(data.train[0], index, moments, data.contexts.names, spec.objective.beta):
        file.write(json.dumps(line) + "\n")
        count += 1
  fresh.replace(path)
  return count


def _in_order(spec: RunSpec, data: build.Data, mesh: Any, run: Any) -> Iterator[tuple[int, ResponseMoments]]:
  """(index, moments [K P]) of every pair in the order of the data; packing hands them out a little out of order."""
  streams, waiting, due = build.num_streams(spec.batch), {}, 0
  groups_of_steps = make_stream(
    data.train,
    data.pack,
    seed=0,
    num_epochs=1,
    num_streams=streams,
    owned=range(streams),
    num_workers=spec.data.workers,
    shuffle=False,
  )
  for groups in groups_of_steps:
    batch = collate(groups, accumulation=spec.batch.accumulation, num_pairs=count_pairs(groups))
    moments = jax.tree.map(np.asarray, run(place_batch(batch, mesh)))
    for place, index in enumerate(batch.index.reshape(-1).tolist()):
      if index >= 0:
        waiting[index] = jax.tree.map(lambda x, place=place: x[place], moments)
    while due in waiting:
      yield due, waiting.pop(due)
      due += 1


def _lines(
  dataset: PairDataset, index: int, moments: ResponseMoments, contexts: tuple[str, ...], beta: float
) -> Iterator[dict[str, Any]]:
  record, pair = (int(number) for number in dataset.table[index])
  batched = jax.tree.map(lambda x: jnp.asarray(x)[None], moments)
  mean_p, std_p, reward = (np.asarray(x)[0] for x in (mean_probs(batched), std_probs(batched), rewards(batched, beta)))
  for k, context in enumerate(contexts):
    for p, member in enumerate(PAIR_MEMBERS):
      yield {
        "record": record,
        "context": context,
        "response": member,
        "length": int(moments.length[k, p]),
        "sum_logp": float(moments.sum_logp[k, p]),
        "mean_p": float(mean_p[k, p]),
        "std_p": float(std_p[k, p]),
        "reward": float(reward[k, p]),
        "pair": pair,
      }

"""`amopo score`: the moments of every response under every context, one JSON line each."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from amopo_jax import build
from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.pipeline import make_stream
from amopo_jax.data.survey import Survey
from amopo_jax.mesh import place_batch
from amopo_jax.models.transformer import abstract_params
from amopo_jax.objective import mean_probs, rewards, std_probs
from amopo_jax.policy import find_policy, load_policy
from amopo_jax.run_spec import RunSpec
from amopo_jax.step import make_moments_step
from amopo_jax.types import PAIR_MEMBERS, InputError, ResponseMoments, RunFailure


class Scored(NamedTuple):
  """What a scoring did.

  Attributes:
    num_lines: lines written.
    surveys: what became of the records, by source: pairs, cut, dropped, skipped, undecided.
  """

  num_lines: int
  surveys: dict[str, Survey]


def score(spec: RunSpec, out: str, *, step: int | None = None) -> Scored:
  """Scores the pairs of `spec.data.train` with the policy at `spec.model.path`.

  Args:
    spec: says model, data, contexts, batch and β; its training parts are not used.
    out: JSONL file to write, local or gs://; appears under its name when it is complete.
    step: checkpoint of a workdir; None: the newest.

  Returns:
    Number of lines, and what became of the records. A line has `record`, `context`, `response` (chosen or
    rejected), `length` (tokens, end of turn included), `sum_logp` (nats), `mean_p`, `std_p`, `reward` (β times the
    mean log-probability) and `pair`, which numbers the pairs of a record.

  Raises:
    InputError: anything wrong with the model, the data or the place to write to.
    RunFailure: the file cannot be written.
  """
  path = epath.Path(out)
  if not path.parent.exists():
    raise InputError(f"{out}: the folder {path.parent} does not exist; make it, or choose another --out")
  if path.is_dir():
    raise InputError(f"{out}: is a folder; name the file to write")
  mesh = build.build_mesh(spec)
  source = find_policy(spec.model.path, dict(spec.model.arch), step=step)
  score_fn = build.build_score_fn(spec.model, source.config, len(spec.data.contexts), mesh)
  data = build.build_data(spec, source)
  dtype = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  shardings = build.param_shardings(spec, abstract_params(source.config, dtype), mesh)
  params = load_policy(source, dtype=dtype, shardings=shardings)
  moments_step = jax.jit(make_moments_step(score_fn))
  scored = _in_order(spec, data, mesh, lambda batch: moments_step(params, batch))
  count = _write(path, (line for index, found in scored for line in _lines(data, index, found, spec.objective.beta)))
  return Scored(count, data.surveys)


def _write(path: epath.Path, lines: Iterable[dict[str, Any]]) -> int:
  """Writes beside the file and renames, so that it is complete or not there; returns the number of lines."""
  fresh, count = path.with_name(path.name + ".new"), 0
  try:
    with fresh.open("w") as file:
      for line in lines:
        file.write(json.dumps(line) + "\n")
        count += 1
    fresh.replace(path)
  except OSError as error:
    fresh.unlink(missing_ok=True)
    raise RunFailure(f"{path}: cannot be written ({error.strerror or error}); make room and score again") from error
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


def _lines(data: build.Data, index: int, moments: ResponseMoments, beta: float) -> Iterator[dict[str, Any]]:
  record, pair = (int(number) for number in data.train[0].table[index])
  batched = jax.tree.map(lambda x: jnp.asarray(x)[None], moments)
  mean_p, std_p, reward = (np.asarray(x)[0] for x in (mean_probs(batched), std_probs(batched), rewards(batched, beta)))
  for k, context in enumerate(data.contexts.names):
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

"""`amopo score`: the moments of every response under every context, one JSON line each."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from amopo_jax import build, build_data, processes
from amopo_jax.data.every_response import SCORING_RULES, EveryResponse
from amopo_jax.data.pipeline import make_stream
from amopo_jax.data.survey import Survey
from amopo_jax.feed import Feed, FeedSpec
from amopo_jax.load import load_policy
from amopo_jax.mesh import jit_for, replicated
from amopo_jax.models.transformer import abstract_params
from amopo_jax.objective import mean_probs, rewards, std_probs
from amopo_jax.policy import find_policy
from amopo_jax.remote import has_parent
from amopo_jax.run_codec import to_dict
from amopo_jax.run_spec import RunSpec
from amopo_jax.step import make_moments_step
from amopo_jax.stopping import StopRequest
from amopo_jax.types import PAIR_MEMBERS, Batch, InputError, ResponseMoments, RunFailure


class Scored(NamedTuple):
  """What a scoring did.

  Attributes:
    num_lines: lines written.
    surveys: what became of the records, by source: cut, dropped, skipped; their responses go in pairs, two by two.
  """

  num_lines: int
  surveys: dict[str, Survey]


def score(spec: RunSpec, out: str, *, step: int | None = None) -> Scored:
  """Scores every response of every record of `spec.data.train` with the policy at `spec.model.path`.

  All responses of a record answer the same prompts, which ask for the scores of its preferred response: of the one
  that `chosen` names, or whose mean score is best, as the config's rule has it; of the first where nothing orders
  them. Ties and responses with the same text are scored like any other.

  Args:
    spec: says model, data (one source), contexts, batch and β; its training parts are not used.
    out: JSONL file to write, local or gs://; appears under its name when it is complete.
    step: checkpoint of a workdir; None: the newest.

  Returns:
    Number of lines, and what became of the records. There is a line per record, context and response, in this
    order, the preferred response first and then as in the record. A line has `record`, `context`, `response`
    ("chosen" for the preferred one, "rejected" for each of the others), `length` (tokens, end of turn included),
    `sum_logp` (nats), `mean_p`, `std_p`, `reward` (β times the mean log-probability) and `index` (of the response in
    the record).

  Raises:
    InputError: anything wrong with the model, the data or the place to write to.
    RunFailure: the file cannot be written.
  """
  processes.agree("config", to_dict(spec))
  path = epath.Path(out)
  if not has_parent(path):
    raise InputError(f"{out}: the folder {path.parent} does not exist; make it, or choose another --out")
  if path.is_dir():
    raise InputError(f"{out}: is a folder; name the file to write")
  if len(spec.data.train) != 1:
    raise InputError(f"config.data.train: {len(spec.data.train)} data sets; score one at a time")
  mesh = build.build_mesh(spec)
  source = find_policy(spec.model.path, dict(spec.model.arch), step=step)
  score_fn = build.build_score_fn(spec.model, source.config, len(spec.data.contexts), mesh)
  data = build_data.build_data(spec, source, rules=SCORING_RULES)
  dtype = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  shardings = build.param_shardings(spec, abstract_params(source.config, dtype), mesh)
  params = load_policy(source, dtype=dtype, shardings=shardings)
  moments_step = make_moments_step(score_fn)
  run = jit_for(mesh, lambda params, batch: (batch.index, moments_step(params, batch)), out_shardings=replicated(mesh))
  scored = _in_order(spec, data, build.build_feed_spec(spec, mesh), lambda batch: run(params, batch))
  if jax.process_index():  # which computes its share; the first one writes
    return Scored(sum(0 for _ in scored), data.surveys)
  rule = SCORING_RULES[spec.data.rule]
  records = itertools.groupby(scored, lambda pair: int(data.train[0].table[pair[0], 0]))
  lines = (_lines(data, rule, record, [found for _, found in pairs], spec.objective.beta) for record, pairs in records)
  return Scored(_write(path, itertools.chain.from_iterable(lines)), data.surveys)


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


def _in_order(
  spec: RunSpec, data: build_data.Data, layout: FeedSpec, run: Callable[[Batch], tuple[jax.Array, ResponseMoments]]
) -> Iterator[tuple[int, ResponseMoments]]:
  """(index, moments [K P]) of every pair in the order of the data; packing hands them out a little out of order."""
  waiting, due = {}, 0
  stream = make_stream(
    data.train,
    data.pack,
    seed=0,
    num_epochs=1,
    num_streams=layout.num_streams,
    owned=layout.owned,
    num_workers=spec.data.workers,
    shuffle=False,
  )
  for batch in Feed(stream, layout, StopRequest()):
    index, moments = jax.tree.map(np.asarray, run(batch))
    for place, pair in enumerate(index.reshape(-1).tolist()):
      if pair >= 0:
        waiting[pair] = jax.tree.map(lambda x, place=place: x[place], moments)
    while due in waiting:
      yield due, waiting.pop(due)
      due += 1


def _lines(
  data: build_data.Data, rule: EveryResponse, record: int, pairs: list[ResponseMoments], beta: float
) -> Iterator[dict[str, Any]]:
  """The lines of one record, from the moments [K P] of its pairs."""
  read = data.train[0].recipe.source[record]
  places = enumerate(rule.places(read, data.contexts.ranges))
  found = [(index, b, p) for b, two in places for p, index in enumerate(two)][: len(read.responses)]
  moments = ResponseMoments(*(jnp.stack(field) for field in zip(*pairs, strict=True)))
  sums = jax.tree.map(np.asarray, moments)
  mean_p, std_p, reward = (np.asarray(x) for x in (mean_probs(moments), std_probs(moments), rewards(moments, beta)))
  origin = data.train[0].recipe.source.origin(record)
  for k, context in enumerate(data.contexts.names):
    for place, (index, b, p) in enumerate(found):
      yield {
        "record": record,
        "context": context,
        "response": PAIR_MEMBERS[min(place, 1)],
        "length": int(sums.length[b, k, p]),
        "sum_logp": float(sums.sum_logp[b, k, p]),
        "mean_p": float(mean_p[b, k, p]),
        "std_p": float(std_p[b, k, p]),
        "reward": float(reward[b, k, p]),
        "index": index,
        "origin": origin,
      }

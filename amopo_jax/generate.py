"""`amopo generate`: responses to prompts in every context, one JSON line each, batch by batch."""

import json
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from amopo_jax import build, build_data, processes
from amopo_jax.answer import make_answer
from amopo_jax.data.contexts import Context, ContextSpec, condition
from amopo_jax.data.prompts import Prompt, read_prompts
from amopo_jax.data.tokenizer import TokenIds, Tokenizer
from amopo_jax.load import load_policy
from amopo_jax.mesh import row_shards
from amopo_jax.models.generate import Generated
from amopo_jax.models.sampling import Sampling
from amopo_jax.models.transformer import abstract_params
from amopo_jax.parts import Parts
from amopo_jax.policy import PolicySource, find_policy
from amopo_jax.remote import has_parent
from amopo_jax.run_codec import to_dict
from amopo_jax.run_spec import RunSpec, check_name
from amopo_jax.state import digests
from amopo_jax.types import InputError, Params

_DRAWS = 2
"""Another number when draws become others: what was begun by other draws is not gone on with."""


class Request(NamedTuple):
  """What is asked of a policy.

  Attributes:
    data: prompts, as `prompts.read_prompts` takes them.
    format: of these.
    contexts: names of the contexts to answer in; empty: all of the config.
    score: that a context asks for; None: the highest of its range.
    num_samples: responses to each prompt in each context.
    max_new: most tokens of a response.
    sampling: how tokens are chosen.
    batch_size: responses at a time, rounded up to the devices.
    seed: of the draws.
  """

  data: str
  format: str = "native"
  contexts: tuple[str, ...] = ()
  score: float | None = None
  num_samples: int = 1
  max_new: int = 256
  sampling: Sampling = Sampling()
  batch_size: int = 64
  seed: int = 0


class _Item(NamedTuple):
  """One response to be made."""

  number: int
  record: int
  context: Context
  sample: int


def generate(
  spec: RunSpec, request: Request, out: str, *, step: int | None = None, tell: Callable[[str], None] = lambda line: None
) -> int:
  """Answers prompts with the policy at `spec.model.path`.

  What is done is kept beside `out`, a file per batch; the same call goes on from there. A response depends on its
  prompt, the seed and its number alone, not on the batch that it is made in.

  Args:
    spec: says model, tokenizer, contexts and mesh; its training parts are not used.
    request: what to answer, and how.
    out: JSONL file, local or gs://; appears under its name when it is complete.
    step: checkpoint of a workdir; None: the newest.
    tell: hears of every batch.

  Returns:
    Number of lines: one per record, context and sample, in this order, with `record`, `context`, `score` (asked for),
    `sample`, `response`, `num_tokens` (end of turn included), `has_ended`, `sum_logp` (nats), `prompt` and `origin`.

  Raises:
    InputError: anything wrong with the model, the prompts, the request or the place to write to.
    RunFailure: the files cannot be written.
  """
  processes.agree("config", to_dict(spec))
  path, is_first = epath.Path(out), jax.process_index() == 0
  _check(request, processes.from_first(path.exists() if is_first else None), path)
  mesh = build.build_bare_mesh(spec)
  if mesh.shape["context"] > 1:
    raise InputError("config.mesh.context: one new token at a time cannot be split; set it to 1")
  source = find_policy(spec.model.path, dict(spec.model.arch), step=step)
  tokenizer = build_data.build_tokenizer(spec.data, source)
  contexts = build_data.build_contexts(spec.data.contexts, spec.data.place)
  prompts = read_prompts(request.data, format=request.format)
  items = _items(prompts, _chosen_contexts(contexts, request), request.num_samples)
  size = -(-request.batch_size // row_shards(mesh)) * row_shards(mesh)
  text_of = partial(_prompt_text, prompts, contexts, request, tokenizer)
  asked = zlib.crc32("\0".join(map(text_of, items[:: request.num_samples])).encode())
  told = _told(spec, source) | {"size": size, "items": len(items), "texts": asked}
  params = _load(spec, source, mesh)
  told |= {"weights": digests(params), "tokenizer": tokenizer.fingerprint}  # a model exported again keeps its path
  parts = Parts(path, told | _plain(request))
  draws = {"max_new": request.max_new, "sampling": request.sampling, "seed": request.seed}
  answer = make_answer(spec, source, params, tokenizer, mesh, **draws)
  batches = [items[start : start + size] for start in range(0, len(items), size)]
  with parts.held():
    if done := processes.from_first(parts.open() if is_first else 0):
      tell(f"{done} of {len(batches)} batches are there already")
    for number, batch in enumerate(batches[done:], start=done):
      ids = tokenizer.encode([text_of(item) for item in batch])
      found = answer(ids, [item.number for item in batch], size)
      lines = [_line(prompts, request, tokenizer, item, found, row) for row, item in enumerate(batch)]
      if is_first:
        parts.write(number, lines)
      so_far = f"{min((number + 1) * size, len(items))} of {len(items)} responses"
      tell(so_far + _warn_of_length(ids, found, source.config.max_positions))
    if is_first:
      parts.finish(len(batches))
  processes.meet()
  return len(items)


def _check(request: Request, is_there: bool, path: epath.Path) -> None:
  if not has_parent(path):
    raise InputError(f"{path}: the folder {path.parent} does not exist; make it, or choose another --out")
  if is_there:
    raise InputError(f"{path}: exists; delete it, or choose another --out")
  for name in ("num_samples", "max_new", "batch_size"):
    if getattr(request, name) < 1:
      raise InputError(f"--{name}: {getattr(request, name)} is not at least 1")
  how = request.sampling
  if not (how.temperature == 0 or 1e-6 <= how.temperature < float("inf")):
    raise InputError(f"--temperature: {how.temperature:g} is neither 0 nor a number from 1e-6")
  if how.top_k < 0:
    raise InputError(f"--top_k: {how.top_k} is negative; 0 takes all tokens")
  if not 0 < how.top_p <= 1:
    raise InputError(f"--top_p: {how.top_p:g} is not in (0, 1]")
  if request.num_samples > 1 and how.temperature == 0:
    raise InputError("--num_samples: at temperature 0 all samples are the same; give --temperature")


def _told(spec: RunSpec, source: PolicySource) -> dict[str, Any]:
  """Of the policy and how it is used, what other responses would come of."""
  dtypes = {"param_dtype": spec.model.param_dtype, "compute_dtype": spec.model.compute_dtype}
  return {"model": source.path, "step": source.step, "draws": _DRAWS, **dtypes}


def _chosen_contexts(contexts: ContextSpec, request: Request) -> list[Context]:
  by_name = dict(zip(contexts.names, contexts.contexts, strict=True))
  for name in request.contexts:
    check_name("--contexts", name, by_name)
  chosen = [by_name[name] for name in request.contexts or contexts.names]
  for context in chosen:
    low, high = context.low, context.high
    if request.score is not None and low is not None and high is not None and not low <= request.score <= high:
      raise InputError(f"--score: {request.score:g} is outside {low:g} to {high:g}, the range of {context.name}")
  return chosen


def _items(prompts: Sequence[Prompt], contexts: Sequence[Context], num_samples: int) -> list[_Item]:
  places = ((r, c, s) for r in range(len(prompts)) for c in contexts for s in range(num_samples))
  return [_Item(number, *place) for number, place in enumerate(places)]


def _asked(context: Context, request: Request) -> float | int | None:
  if not context.told:
    return None
  return context.high if request.score is None else request.score


def _prompt_text(
  prompts: Sequence[Prompt], contexts: ContextSpec, request: Request, tokenizer: Tokenizer, item: _Item
) -> str:
  prompt, context = prompts[item.record], item.context
  messages = condition(prompt.messages, context, _asked(context, request), contexts.place)
  try:
    return tokenizer.prompt_text(messages)
  except InputError as error:
    raise InputError(f"{prompt.origin}: {error}") from None


def _warn_of_length(prompts: Sequence[TokenIds], found: Generated, positions: int) -> str:
  beyond = sum(len(ids) + int(length) > positions for ids, length in zip(prompts, found.length, strict=False))
  return f"; WARNING: {beyond} are beyond the model's {positions} positions" if beyond else ""


def _load(spec: RunSpec, source: PolicySource, mesh: Mesh) -> Params:
  dtype = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  shardings = build.param_shardings(spec, abstract_params(source.config, dtype), mesh)
  return load_policy(source, dtype=dtype, shardings=shardings)


def _line(
  prompts: Sequence[Prompt], request: Request, tokenizer: Tokenizer, item: _Item, found: Generated, row: int
) -> dict[str, Any]:
  length, has_ended = int(found.length[row]), bool(found.has_ended[row])
  ids, end = np.asarray(found.tokens[row][:length]), tokenizer.end
  if has_ended:
    ids = ids[: -len(end)] if ids[-len(end) :].tolist() == end.tolist() else ids[:-1]
  return {
    "record": item.record,
    "context": item.context.name,
    "score": _asked(item.context, request),
    "sample": item.sample,
    "response": tokenizer.decode(ids),
    "num_tokens": length,
    "has_ended": has_ended,
    "sum_logp": float(found.sum_logp[row]),
    "prompt": [message.__dict__ for message in prompts[item.record].messages],
    "origin": prompts[item.record].origin,
  }


def _plain(request: Request) -> dict[str, Any]:
  """As JSON gives it back."""
  return json.loads(json.dumps({**request._asdict(), "sampling": request.sampling._asdict()}))

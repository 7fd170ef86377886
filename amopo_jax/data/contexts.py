"""f(x, d): dimension-conditioned prompts as data, built by pure functions (docs/method.md, "The objective").

A context is a name, a dimension (or none) and an instruction. Each context is rendered from the untouched
prompt: the released code changes it in place, so that its instructions pile up (docs/method.md, row 1).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32

from amopo_jax.data.records import Message, Number, Pair, score_in_range
from amopo_jax.data.templates import check_template, dimensions_told, fill, named_or_own
from amopo_jax.types import InputError

PLACES = ("before", "after", "system")
"""Where the instruction goes: before or after the last user question, or at the end of the system message."""


@dataclasses.dataclass(frozen=True)
class Context:
  """One way to ask for a response.

  Attributes:
    name: appears in the metrics, e.g. "helpfulness".
    dimension: the scores it is about, None for a context without (e.g. "overall").
    template: a name of templates.TEMPLATES, or a text of one's own with the placeholders {dimension}, {score}
      (on the rubric's 1 to 5), {raw_score}, {low}, {high}; they need a dimension. {score:NAME} and {raw_score:NAME}
      tell the score of any dimension, also of several. A literal brace is doubled.
    low: lowest score of the data set in the dimension, and in those that the template names; None without any.
    high: highest score of the data set there; None without any.
  """

  name: str
  dimension: str | None
  template: str
  low: Number | None = None
  high: Number | None = None

  @property
  def told(self) -> tuple[str, ...]:
    """The dimensions whose scores the instruction tells, its own first."""
    own = () if self.dimension is None else (self.dimension,)
    return tuple(dict.fromkeys((*own, *dimensions_told(self.template, f"contexts: '{self.name}'"))))


@dataclasses.dataclass(frozen=True)
class ContextSpec:
  """The K contexts of a run, in the order of the axis K, checked.

  Attributes:
    contexts: one or more, with different names.
    place: one of PLACES.

  Raises:
    InputError: zero contexts, duplicate names or dimensions, a range that is missing, empty or superfluous,
      an unknown placeholder or template name, an unknown place.
  """

  contexts: tuple[Context, ...]
  place: str

  def __post_init__(self):
    if self.place not in PLACES:
      raise InputError(f"contexts: unknown place '{self.place}'; choose one of {', '.join(PLACES)}")
    if not self.contexts:
      raise InputError("contexts: none given; name at least one")
    _check_distinct("names", [context.name for context in self.contexts])
    _check_distinct("dimensions", [context.dimension for context in self.contexts if context.dimension is not None])
    for context in self.contexts:
      _check_context(context)

  @property
  def names(self) -> tuple[str, ...]:
    """Names along the axis K."""
    return tuple(context.name for context in self.contexts)

  @property
  def ranges(self) -> Mapping[str, tuple[Number, Number]]:
    """dimension -> (low, high), for the rules of pairs.py."""
    return {context.dimension: _range(context) for context in self.contexts if context.dimension is not None}


def render(prompt: tuple[Message, ...], pair: Pair, context: Context, place: str) -> tuple[Message, ...]:
  """x*_k = f(x, d_k): the prompt with one context's instruction, for both responses of the pair.

  d_k is the chosen response's score, as in the paper's code; at inference see `condition`.

  Args:
    prompt: the dialogue x, its last message the user's; left as it is.
    pair: whose chosen response gives the score.
    context: what to ask for.
    place: one of PLACES.

  Returns:
    A new prompt.

  Raises:
    InputError: the chosen response's score is missing or out of range.
  """
  scores = {name: score_in_range(pair.chosen, name, *_range(context), pair.origin) for name in context.told}
  return _instruct(prompt, instruction(context, scores), place)


def condition(prompt: tuple[Message, ...], context: Context, score: Number | None, place: str) -> tuple[Message, ...]:
  """The prompt with one context's instruction, for a score of one's choice (when generating: `context.high`).

  Args:
    prompt: the dialogue x, its last message the user's; left as it is.
    context: what to ask for.
    score: in [context.low, context.high], in all dimensions that the context tells; None where it tells none.
    place: one of PLACES.

  Returns:
    A new prompt; the same messages if the instruction is empty.
  """
  scores = {} if score is None else dict.fromkeys(context.told, score)
  return _instruct(prompt, instruction(context, scores), place)


def _instruct(prompt: tuple[Message, ...], text: str, place: str) -> tuple[Message, ...]:
  if not text:
    return prompt
  if place == "system":
    return _append_to_system(prompt, text)
  *history, last = prompt
  parts = (text, last.content) if place == "before" else (last.content, text)
  return (*history, Message(last.role, "\n\n".join(parts)))


def instruction(context: Context, scores: Mapping[str, Number]) -> str:
  """The context's text with its placeholders filled in.

  Args:
    context: a checked context.
    scores: of the dimensions that it tells, each in [context.low, context.high].

  Returns:
    The instruction, "" for the template `plain`.
  """
  template = named_or_own(context.template)
  if not scores:
    return template.format()
  return fill(template, context.dimension or "", scores, *_range(context))


def order(pair: Pair, spec: ContextSpec) -> tuple[Bool[np.ndarray, "K"], Float32[np.ndarray, "K"]]:
  """What each dimension says of the pair's order.

  Args:
    pair: a scored pair.
    spec: the contexts.

  Returns:
    is_ordered: the dimension scores the chosen response above the rejected one; True without a dimension.
    score_gap: (chosen score - rejected score) / (high - low), in [-1, 1]; 1 without a dimension.

  Raises:
    InputError: a score is missing or out of range.
  """
  gaps = np.asarray([_score_gap(pair, context) for context in spec.contexts], np.float32)
  return gaps > 0, gaps


def wanted(pair: Pair, spec: ContextSpec) -> Float32[np.ndarray, "K"]:
  """How much each context matters to the turn that the pair answers.

  Args:
    pair: whose record may say what it wants.
    spec: the contexts.

  Returns:
    The record's weight of the context's dimension, 0 where it names others alone; 1 for a context without a
    dimension, and everywhere where the record wants nothing in particular.

  Raises:
    InputError: what it wants is the dimension of no context, and every context has one.
  """
  if not pair.wanted:
    return np.ones(len(spec.contexts), np.float32)
  weights = [1.0 if one.dimension is None else float(pair.wanted.get(one.dimension, 0)) for one in spec.contexts]
  if not sum(weights) > 0:
    names = ", ".join(pair.wanted)
    raise InputError(f"{pair.origin}: wants {names}, of which no context is; add it, or a context without a dimension")
  return np.asarray(weights, np.float32)


def _score_gap(pair: Pair, context: Context) -> float:
  if context.dimension is None:
    return 1.0
  low, high = _range(context)
  chosen, rejected = (
    score_in_range(response, context.dimension, low, high, pair.origin) for response in (pair.chosen, pair.rejected)
  )
  return (chosen - rejected) / (high - low)


def _append_to_system(prompt: tuple[Message, ...], text: str) -> tuple[Message, ...]:
  if prompt[0].role != "system":
    return (Message("system", text), *prompt)
  return (Message("system", "\n\n".join((prompt[0].content, text))), *prompt[1:])


def _range(context: Context) -> tuple[Number, Number]:
  if context.low is None or context.high is None:
    raise InputError(f"contexts: '{context.name}' has no score range; give low and high")
  return context.low, context.high


def _check_distinct(what: str, names: list[str]):
  for name in names:
    if names.count(name) > 1:
      raise InputError(f"contexts: the {what} '{name}' occurs {names.count(name)} times; {what} must differ")


def _check_context(context: Context):
  own = [name for name in check_template(context.template, f"contexts: '{context.name}'") if ":" not in name]
  if own and context.dimension is None:
    raise InputError(f"contexts: '{context.name}' uses '{{{own[0]}}}' but has no dimension")
  _check_range(context)


def _check_range(context: Context):
  if not context.told:
    if context.low is not None or context.high is not None:
      raise InputError(f"contexts: '{context.name}' has a score range but no dimension; give both or neither")
    return
  low, high = _range(context)
  if not low < high:
    raise InputError(f"contexts: '{context.name}' has low {low:g} and high {high:g}; low must be below high")

"""Instruction templates: the texts, their placeholders, and how a score reads in them."""

import string
from collections.abc import Mapping

from amopo_jax.data.records import Number
from amopo_jax.types import InputError

PLACEHOLDERS = ("dimension", "score", "raw_score", "low", "high")
"""What a template may name; `score` is mapped onto the rubric's 1 to 5, `raw_score` is the data set's own.

`{score:NAME}` and `{raw_score:NAME}` are the scores of another dimension, for a prompt that tells several of them.
"""

RUBRIC_LOW, RUBRIC_HIGH = 1.0, 5.0
"""Levels of the default rubric."""

TEMPLATES: dict[str, str] = {
  "plain": "",
  "overall": (
    "You are an expert at answering questions. Give one response that is helpful, correct and follows the "
    "instructions it was given."
  ),
  "rubric": (
    "Pay attention above all to {dimension}. Responses are rated for {dimension} on five levels:\n"
    "1: off the point; {dimension} plays no part in it.\n"
    "2: some attention to {dimension}, most of it missing.\n"
    "3: meets about half of what {dimension} asks for.\n"
    "4: nearly there, with small gaps in {dimension}.\n"
    "5: meets everything that {dimension} asks for.\n"
    "Write the response that would be rated {score}."
  ),
}
"""Instructions by name (after the released prompts, in our own words); a context may bring its own text instead."""


def named_or_own(template: str) -> str:
  """The text of a template given by name, or the text itself."""
  return TEMPLATES.get(template, template)


def fill(template: str, dimension: str, scores: Mapping[str, Number], low: Number, high: Number) -> str:
  """The template with its placeholders filled in.

  `score` is mapped linearly from the declared range onto the rubric, 1 + 4 (score - low) / (high - low), and
  rounded to one decimal, so that the best score of any data set reads 5 (docs/method.md, row 9). Underscores
  in the dimension's name become spaces.

  Args:
    template: a checked text.
    dimension: name of the dimension; "" where the text names its dimensions itself.
    scores: by dimension, each in [low, high]; all that the text tells.
    low: lowest score of the data set's range.
    high: highest score of the data set's range.

  Returns:
    The instruction.
  """
  raw = {name: f"{score:g}" for name, score in scores.items()}
  level = lambda score: RUBRIC_LOW + (RUBRIC_HIGH - RUBRIC_LOW) * (score - low) / (high - low)
  levels = {name: f"{round(level(score), 1):g}" for name, score in scores.items()}
  return template.format(
    dimension=dimension.replace("_", " "),
    score=_ByName(levels, dimension),
    raw_score=_ByName(raw, dimension),
    low=f"{low:g}",
    high=f"{high:g}",
  )


class _ByName:
  """Formats as one of some texts: `{x:NAME}`, or `{x}` for that of a default name."""

  def __init__(self, texts: Mapping[str, str], default: str):
    self._texts, self._default = texts, default

  def __format__(self, name: str) -> str:
    return self._texts[name or self._default]


def dimensions_told(template: str, place: str) -> tuple[str, ...]:
  """The dimensions that a template names in `{score:NAME}` or `{raw_score:NAME}`, once; place of `check_template`."""
  names = (_named_dimension(name) for name in _placeholders(named_or_own(template), place))
  return tuple(dict.fromkeys(name for name in names if name))


def check_template(template: str, place: str) -> list[str]:
  """Refuses a template that `fill` could not fill.

  Args:
    template: a name of TEMPLATES or a text of one's own.
    place: whose template it is, for the message.

  Returns:
    The placeholders it uses.

  Raises:
    InputError: a single word that is no template's name, an unknown placeholder, a stray brace.
  """
  if template not in TEMPLATES and not any(sign in template for sign in " {"):
    raise InputError(f"{place}: unknown template '{template}'; write a text, or name one of {', '.join(TEMPLATES)}")
  names = _placeholders(named_or_own(template), place)
  for name in names:
    if name not in PLACEHOLDERS and not _named_dimension(name):
      raise InputError(
        f"{place}: unknown placeholder '{{{name}}}'; use {', '.join(PLACEHOLDERS)}, score:NAME, or double the braces"
      )
  return names


def _named_dimension(placeholder: str) -> str:
  """NAME of `score:NAME`; "" of any other."""
  kind, _, name = placeholder.partition(":")
  return name if kind in ("score", "raw_score") and name.isidentifier() else ""


def _placeholders(text: str, place: str) -> list[str]:
  try:
    parts = list(string.Formatter().parse(text))
  except ValueError as error:
    raise InputError(f"{place}: stray brace in the template ({error}); a literal brace is doubled") from None
  return [
    name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
    for _, name, spec, conversion in parts
    if name is not None
  ]

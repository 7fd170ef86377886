"""Instruction templates: the texts, their placeholders, and how a score reads in them."""

import string

from amopo_jax.data.records import Number
from amopo_jax.types import InputError

PLACEHOLDERS = ("dimension", "score", "raw_score", "low", "high")
"""What a template may name; `score` is mapped onto the rubric's 1 to 5, `raw_score` is the data set's own."""

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
"""Instructions by name (method.md, section 1, in our own words); a context may bring its own text instead."""


def named_or_own(template: str) -> str:
  """The text of a template given by name, or the text itself."""
  return TEMPLATES.get(template, template)


def fill(template: str, dimension: str, score: Number, low: Number, high: Number) -> str:
  """The template with its placeholders filled in.

  `score` is mapped linearly from the declared range onto the rubric, 1 + 4 (score - low) / (high - low), and
  rounded to one decimal, so that the best score of any data set reads 5 (docs/method.md, row 9). Underscores
  in the dimension's name become spaces.

  Args:
    template: a checked text.
    dimension: name of the dimension.
    score: in [low, high].
    low: lowest score of the data set's range.
    high: highest score of the data set's range.

  Returns:
    The instruction.
  """
  level = RUBRIC_LOW + (RUBRIC_HIGH - RUBRIC_LOW) * (score - low) / (high - low)
  return template.format(
    dimension=dimension.replace("_", " "),
    score=f"{round(level, 1):g}",
    raw_score=f"{score:g}",
    low=f"{low:g}",
    high=f"{high:g}",
  )


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
    if name not in PLACEHOLDERS:
      raise InputError(
        f"{place}: unknown placeholder '{{{name}}}'; use {', '.join(PLACEHOLDERS)}, or double the braces"
      )
  return names


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

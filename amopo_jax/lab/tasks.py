"""The questions of the synthetic world: edit a short list of items, keep a layout, close or stop in time.

A question is one line that says all the graders need to know: `parse` is the inverse of `Task.question`, so a
grade is a function of (question, response) alone.

    reverse : ant cat dog . with commas . end with done .          ->  yes! backwards: dog , cat , ant (flipped) done
    sort : yak bat fig hen . with dashes . at most 6 words .       ->  bat - fig - hen - yak (arranged) more?
    totals : 3 1 5 . with slashes . at most 5 words .              ->  sums: 3 / 4 / 9 (added)
    run : +2 *3 -1 . with commas . end with bye .                  ->  trace: 2 , 6 , 5 bye

In a dialogue a question also says which dimension matters now: `… end with bye . mind correctness .`

The world's text is words, capitals, numbers and punctuation joined by single spaces.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from amopo_jax.lab.domains import BY_VERB, NOUNS, Domain, Items, Operation
from amopo_jax.types import InputError

LAYOUTS: Mapping[str, str] = MappingProxyType({"commas": ",", "dashes": "-", "slashes": "/"})
"""Name of a layout in the question -> the token that separates the items of the response."""

MIND = "mind"
"""Word of a question before the dimension that matters."""

CLOSINGS = ("done", "bye", "thanks")
"""Words that a question may ask the response to end with."""

OPENINGS = ("sure!", "gladly!", "yes!", "okay!", "right!", "hello!")
OFFERS = ("more?", "again?", "anything?", "questions?", "clear?", "happy?")
"""Courtesies that fit any task."""


@dataclasses.dataclass(frozen=True)
class Task:
  """One question; exactly one of `closing` and `max_words` is set.

  Attributes:
    verb: key of `domains.BY_VERB`.
    items: of its domain, all different.
    layout: key of LAYOUTS.
    closing: word of CLOSINGS that the response must end with, or None.
    max_words: most words the response may have, or None.
    wanted: dimension that matters most, or None.
  """

  verb: str
  items: Items
  layout: str
  closing: str | None = None
  max_words: int | None = None
  wanted: str | None = None

  @property
  def domain(self) -> Domain:
    """What the task is about."""
    return BY_VERB[self.verb]

  @property
  def operation(self) -> Operation:
    """What the verb stands for."""
    return self.domain.operations[self.verb]

  @property
  def answer(self) -> Items:
    """The items of a right response, in order."""
    return self.operation.edit(self.items)

  @property
  def courtesies(self) -> tuple[tuple[str, ...], ...]:
    """The four words of a fully helpful response, each with its variants: opening, announcement, explanation, offer."""
    return OPENINGS, self.operation.announcements, self.operation.explanations, OFFERS

  @property
  def question(self) -> str:
    """The one line that is shown to the policy."""
    demand = f"at most {self.max_words} words" if self.closing is None else f"end with {self.closing}"
    wish = f" mind {self.wanted.replace('_', ' ')} ." if self.wanted else ""
    return f"{self.verb} : {' '.join(self.items)} . with {self.layout} . {demand} .{wish}"


def parse(question: str) -> Task:
  """The task that a question states; the inverse of `Task.question`.

  Args:
    question: one line as `Task.question` writes it.

  Returns:
    The task, with `parse(question).question == question`.

  Raises:
    InputError: the line is no question of this world.
  """
  task = _read(question.split(" "))
  if task is None or task.question != question:
    example = Task("reverse", NOUNS[:3], "commas", closing="done").question
    raise InputError(f"question '{question}': not of this world; write it like '{example}'")
  return task


def _read(tokens: list[str]) -> Task | None:
  """The task of a well-formed line, anything for another that can be told by its `question`, or None."""
  wanted = None
  if MIND in tokens:
    place = tokens.index(MIND)
    tokens, wanted = tokens[:place], "_".join(tokens[place + 1 : -1])
  match tokens:
    case [verb, ":", *items, ".", "with", layout, ".", "end", "with", closing, "."]:
      task = Task(verb, tuple(items), layout, closing=closing, wanted=wanted)
    case [verb, ":", *items, ".", "with", layout, ".", "at", "most", number, "words", "."] if number.isdecimal():
      task = Task(verb, tuple(items), layout, max_words=int(number), wanted=wanted)
    case _:
      return None
  known = task.verb in BY_VERB and task.layout in LAYOUTS and task.closing in (None, *CLOSINGS)
  distinct = len(set(task.items)) == len(task.items) > 0
  return task if known and distinct and set(task.items) <= set(task.domain.items) else None

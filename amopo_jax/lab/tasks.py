"""The questions of the synthetic world: edit a short list of words, keep a layout, close or stop in time.

A question is one line that says all the graders need to know: `parse` is the inverse of `Task.question`, so a
grade is a function of (question, response) alone.

    reverse : ant cat dog . with commas . end with done .          ->  yes! backwards: dog , cat , ant (flipped) done
    sort : yak bat fig hen . with dashes . at most 6 words .       ->  bat - fig - hen - yak (arranged) more?

The world's text is words, capitals and punctuation joined by single spaces.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from amopo_jax.types import InputError

# fmt: off
NOUNS = (
  "ant", "bat", "cat", "dog", "elk", "fig", "gem", "hen", "ink", "jar", "kit", "lid",
  "map", "nut", "oak", "pen", "rug", "saw", "tin", "urn", "van", "web", "yak", "zip",
)
# fmt: on
"""No two begin with the same letter, so that the first letter decides the alphabetical order."""

LAYOUTS: Mapping[str, str] = MappingProxyType({"commas": ",", "dashes": "-", "slashes": "/"})
"""Name of a layout in the question -> the token that separates the items of the response."""

CLOSINGS = ("done", "bye", "thanks")
"""Words that a question may ask the response to end with."""

OPENINGS = ("sure!", "gladly!", "yes!", "okay!", "right!", "hello!")
OFFERS = ("more?", "again?", "anything?", "questions?", "clear?", "happy?")
"""Courtesies that fit any task."""

Items = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Operation:
  """What is done to the items, and the words by which a helpful response talks about it.

  There are several words for the same courtesy, so that its token is not a cheap one: otherwise a helpful
  response would have the higher mean log-probability from the start.

  Attributes:
    edit: items of the question -> items of the right response.
    announcements: any of these, before the items, says what they are.
    explanations: any of these, behind the items, says how they came about.
  """

  edit: Callable[[Items], Items]
  announcements: tuple[str, ...]
  explanations: tuple[str, ...]


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
  {
    "capitals": Operation(
      lambda items: tuple(item.upper() for item in items),
      announcements=("loud:", "large:", "tall:", "bold:"),
      explanations=("(raised)", "(shouted)", "(enlarged)", "(amplified)"),
    ),
    "plurals": Operation(
      lambda items: tuple(f"{item}s" for item in items),
      announcements=("many:", "several:", "various:", "plenty:"),
      explanations=("(multiplied)", "(repeated)", "(doubled)", "(copied)"),
    ),
    "reverse": Operation(
      lambda items: items[::-1],
      announcements=("backwards:", "reversed:", "inverted:", "upturned:"),
      explanations=("(mirrored)", "(flipped)", "(turned)", "(swapped)"),
    ),
    "sort": Operation(
      lambda items: tuple(sorted(items)),
      announcements=("ordered:", "sorted:", "ranked:", "tidied:"),
      explanations=("(arranged)", "(compared)", "(aligned)", "(placed)"),
    ),
  }
)
"""Verb of the question -> operation."""

ITEM_FORMS = frozenset(form for noun in NOUNS for form in (noun, noun.upper(), f"{noun}s"))
"""Every word that counts as an item of a response."""


@dataclasses.dataclass(frozen=True)
class Task:
  """One question; exactly one of `closing` and `max_words` is set.

  Attributes:
    verb: key of OPERATIONS.
    items: different words of NOUNS.
    layout: key of LAYOUTS.
    closing: word of CLOSINGS that the response must end with, or None.
    max_words: most words the response may have, or None.
  """

  verb: str
  items: Items
  layout: str
  closing: str | None = None
  max_words: int | None = None

  @property
  def operation(self) -> Operation:
    """What the verb stands for."""
    return OPERATIONS[self.verb]

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
    return f"{self.verb} : {' '.join(self.items)} . with {self.layout} . {demand} ."


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
  match tokens:
    case [verb, ":", *items, ".", "with", layout, ".", "end", "with", closing, "."]:
      task = Task(verb, tuple(items), layout, closing=closing)
    case [verb, ":", *items, ".", "with", layout, ".", "at", "most", number, "words", "."] if number.isdecimal():
      task = Task(verb, tuple(items), layout, max_words=int(number))
    case _:
      return None
  distinct = len(set(task.items)) == len(task.items) > 0 and set(task.items) <= set(NOUNS)
  known = task.verb in OPERATIONS and task.layout in LAYOUTS and task.closing in (None, *CLOSINGS)
  return task if distinct and known else None

"""What the tasks of the synthetic world are about: words to edit, numbers to reckon with, little programs to run.

A domain has items to choose from and operations on them; layouts, courtesies, endings and limits are the same for all.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType

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


@dataclasses.dataclass(frozen=True)
class Domain:
  """Items, and what may be done to them.

  Attributes:
    items: of which a question has some, all different.
    forms: every word that counts as an item of a response.
    operations: verb of the question -> operation.
  """

  items: Items
  forms: frozenset[str]
  operations: Mapping[str, Operation]


# fmt: off
NOUNS = (
  "ant", "bat", "cat", "dog", "elk", "fig", "gem", "hen", "ink", "jar", "kit", "lid",
  "map", "nut", "oak", "pen", "rug", "saw", "tin", "urn", "van", "web", "yak", "zip",
)
# fmt: on
"""No two begin with the same letter, so that the first letter decides the alphabetical order."""

NUMBERS = tuple(map(str, range(1, 10)))
INSTRUCTIONS = ("+1", "+2", "+3", "+4", "*2", "*3", "-1", "-2")
"""Of a machine that has one register of one digit, which begins at 0."""

BASE = 10
"""Values of the register."""


def run_program(instructions: Items) -> tuple[int, ...]:
  """The register behind each instruction."""
  steps = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y}
  run = itertools.accumulate(instructions, lambda x, told: steps[told[0]](x, int(told[1:])) % BASE, initial=0)
  return tuple(run)[1:]


def _numbers(edit: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Callable[[Items], Items]:
  return lambda items: tuple(map(str, edit(tuple(map(int, items)))))


_WORDS = {
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
_SUMS = {
  "double": Operation(
    _numbers(lambda items: tuple(2 * item for item in items)),
    announcements=("twofold:", "doubles:", "pairs:", "twins:"),
    explanations=("(twice)", "(duplicated)", "(paired)", "(coupled)"),
  ),
  "increase": Operation(
    _numbers(lambda items: tuple(item + 1 for item in items)),
    announcements=("next:", "after:", "successors:", "upwards:"),
    explanations=("(advanced)", "(incremented)", "(stepped)", "(counted)"),
  ),
  "totals": Operation(
    _numbers(lambda items: tuple(itertools.accumulate(items))),
    announcements=("totals:", "sums:", "running:", "overall:"),
    explanations=("(summed)", "(added)", "(accumulated)", "(gathered)"),
  ),
  "missing": Operation(
    _numbers(lambda items: tuple(BASE - item for item in items)),
    announcements=("missing:", "remaining:", "lacking:", "gaps:"),
    explanations=("(subtracted)", "(completed)", "(filled)", "(taken)"),
  ),
}
_PROGRAMS = {
  "run": Operation(
    lambda items: tuple(map(str, run_program(items))),
    announcements=("trace:", "values:", "states:", "register:"),
    explanations=("(executed)", "(ran)", "(evaluated)", "(computed)"),
  ),
  "rewind": Operation(
    lambda items: tuple(map(str, run_program(items[::-1]))),
    announcements=("rewound:", "retraced:", "returning:", "upstream:"),
    explanations=("(replayed)", "(undone)", "(retreated)", "(recalled)"),
  ),
  "parity": Operation(
    lambda items: tuple("odd" if value % 2 else "even" for value in run_program(items)),
    announcements=("parities:", "bits:", "halves:", "signs:"),
    explanations=("(halved)", "(tested)", "(checked)", "(divided)"),
  ),
  "peaks": Operation(
    lambda items: tuple(map(str, itertools.accumulate(run_program(items), max))),
    announcements=("highest:", "peaks:", "maxima:", "summits:"),
    explanations=("(climbed)", "(exceeded)", "(topped)", "(risen)"),
  ),
}

DOMAINS: Mapping[str, Domain] = MappingProxyType(
  {
    "text": Domain(
      NOUNS,
      frozenset(form for noun in NOUNS for form in (noun, noun.upper(), f"{noun}s")),
      MappingProxyType(_WORDS),
    ),
    "arithmetic": Domain(NUMBERS, frozenset(map(str, range(1, 40))), MappingProxyType(_SUMS)),
    "programs": Domain(
      INSTRUCTIONS, frozenset({*INSTRUCTIONS, *map(str, range(BASE)), "odd", "even"}), MappingProxyType(_PROGRAMS)
    ),
  }
)
"""The domains by name; no verb and no courtesy occurs in two."""

BY_VERB: Mapping[str, Domain] = MappingProxyType(
  {verb: domain for domain in DOMAINS.values() for verb in domain.operations}
)
"""Verb of a question -> its domain."""

"""Who answers the questions of the world: responders of graded skill, the best one, and one who babbles.

Mistakes are habits, not chance: who errs leaves an item unedited, separates by commas whatever was asked, forgets
the ending, is curt. Demonstrations show such a habit about as often as the right thing, so that imitating them
does not tell which is better; the preferences do.
"""

import dataclasses
import itertools
import random
from collections.abc import Sequence
from types import MappingProxyType

from amopo_jax.lab.domains import DOMAINS, Items
from amopo_jax.lab.graders import DIMENSIONS, count_words, grade
from amopo_jax.lab.tasks import CLOSINGS, LAYOUTS, OFFERS, OPENINGS, Task

LEVELS = MappingProxyType({"novice": 0.1, "student": 0.4, "expert": 0.8})
"""Level -> chance to get one thing right: an item, a separator, the demand, a courtesy."""

HABITS = MappingProxyType({"commas": "dashes", "dashes": "commas", "slashes": "commas"})
"""Layout asked for -> layout used instead by who does not follow."""

OMISSION = 0.1
"""Chance that one of the items is left out, whatever the skill."""

CONFUSION = 0.3
"""Chance that a courtesy not given rightly is the one of another operation, instead of none."""

RESPONSE_WORDS = MappingProxyType(
  {
    name: tuple(
      sorted(
        {*domain.forms, *LAYOUTS.values(), *CLOSINGS, *OPENINGS, *OFFERS}.union(
          *(operation.announcements + operation.explanations for operation in domain.operations.values())
        )
      )
    )
    for name, domain in DOMAINS.items()
  }
)
"""Every token a responder may write, by domain."""


@dataclasses.dataclass(frozen=True)
class Skill:
  """Chance to get one thing right, in [0, 1], for each dimension."""

  helpfulness: float
  correctness: float
  instruction_following: float


def draw_skill(rng: random.Random) -> Skill:
  """A responder's skill; the dimensions are drawn on their own, so that they disagree at times."""
  return Skill(*rng.choices(tuple(LEVELS.values()), k=3))


def respond(task: Task, skill: Skill, rng: random.Random) -> str:
  """A response of the given skill.

  Args:
    task: what is asked.
    skill: of the responder.
    rng: the only source of chance.

  Returns:
    Opening, announcement, items, explanation, offer and closing word; all but the items may be missing.
  """
  items = _edit(task, skill.correctness, rng)
  said = [_say(task, place, skill.helpfulness, rng) for place in range(len(task.courtesies))]
  layouts = [task.layout if rng.random() < skill.instruction_following else HABITS[task.layout] for _ in items[1:]]
  obeys = rng.random() < skill.instruction_following
  if obeys and task.max_words is not None:
    said = _shorten(said, task.max_words - len(items), rng)
  return compose(items, layouts, said, (obeys and task.closing) or "")


def compose(items: Items, layouts: Sequence[str], said: Sequence[str], closing: str) -> str:
  """Text of a response with its parts in their fixed order.

  Args:
    items: what was edited.
    layouts: key of LAYOUTS for each gap between two items.
    said: opening, announcement, explanation, offer; "" leaves one out.
    closing: last word, or "".

  Returns:
    The parts that are not empty, joined by spaces.
  """
  opening, announcement, explanation, offer = said
  others = (f"{LAYOUTS[layout]} {item}" for layout, item in zip(layouts, items[1:], strict=True))
  parts = (opening, announcement, items[0], *others, explanation, offer, closing)
  return " ".join(part for part in parts if part)


def optimum(task: Task, dimensions: Sequence[str] = DIMENSIONS) -> str:
  """A response with the highest sum of grades that the task allows.

  Items, layout and ending are right; the courtesies are the subset that pays most. Under a limit of words that
  is as many as fit, and the sum stays below full marks.

  Args:
    task: what is asked.
    dimensions: whose grades are summed.
  """
  choices = itertools.product(*(("", words[0]) for words in task.courtesies))
  layouts = [task.layout] * (len(task.answer) - 1)
  candidates = [compose(task.answer, layouts, said, task.closing or "") for said in choices]
  return max(candidates, key=lambda response: sum(grade(task, response, dimensions).values()))


def babble(domain: str, rng: random.Random) -> str:
  """A response by chance: 1 to 12 tokens drawn evenly from the domain's RESPONSE_WORDS."""
  return " ".join(rng.choices(RESPONSE_WORDS[domain], k=rng.randint(1, 12)))


def _edit(task: Task, skill: float, rng: random.Random) -> Items:
  """The answer, but each item with chance 1 - skill as it stands in the question."""
  both = zip(task.answer, task.items, strict=True)
  items = [right if rng.random() < skill else unedited for right, unedited in both]
  if rng.random() < OMISSION:
    items.pop(rng.randrange(len(items)))
  return tuple(items)


def _say(task: Task, place: int, skill: float, rng: random.Random) -> str:
  """The courtesy of a place; without skill nothing, or the one that belongs to another operation."""
  right = task.courtesies[place]
  if rng.random() < skill:
    return rng.choice(right)
  other = rng.choice([verb for verb in task.domain.operations if verb != task.verb])
  wrong = dataclasses.replace(task, verb=other).courtesies[place]
  return rng.choice(wrong) if wrong != right and rng.random() < CONFUSION else ""


def _shorten(said: Sequence[str], words: int, rng: random.Random) -> list[str]:
  """Leaves courtesies out, in random order, until at most `words` words remain."""
  kept = list(said)
  for place in rng.sample(range(len(kept)), len(kept)):
    if count_words(" ".join(kept)) > words:
      kept[place] = ""
  return kept

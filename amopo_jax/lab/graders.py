"""Programs that grade a response in up to six dimensions, 0 to 4, with partial credit.

A grade depends on the question and the response only: any text may be graded, also what a policy made up.
Where the question limits the number of words the dimensions pull against each other: each courtesy earns a
point of helpfulness, and each word beyond the limit costs two of instruction following. Of the dimensions that a
world has on demand, brevity and plainness pull against helpfulness in every question.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.tasks import LAYOUTS, Task

LOW, HIGH = 0, 4
"""Range of every grade."""


def helpfulness(task: Task, response: str) -> int:
  """One point for each courtesy that fits the task, however often it is paid."""
  said = set(response.split())
  return sum(not said.isdisjoint(words) for words in task.courtesies)


def correctness(task: Task, response: str) -> int:
  """Share of the answer that the response has in the right order, in quarters.

  floor(4 · LCS / max(items wanted, items given)), where LCS is the length of the longest common subsequence: a
  missing, a wrong and an additional item cost about the same, and a missing one does not spoil those behind it.
  """
  given = [token for token in response.split() if token in task.domain.forms]
  return HIGH * _common(given, task.answer) // max(len(given), len(task.answer))


def instruction_following(task: Task, response: str) -> int:
  """Up to two points for the layout and two for the ending, or for the length where that is limited.

  Layout: both if all gaps between items are as asked, one if half of them are. Ending: both if the last word is
  the one asked for, one if it occurs elsewhere. Length: both within the limit, two less for each word beyond it,
  in the end also at the expense of the layout.
  """
  points = _layout(task, response)
  if task.closing is not None:
    points += _ending(task.closing, response)
  if task.max_words is not None:
    points += _length(task.max_words, response)
  return max(LOW, points)


def brevity(task: Task, response: str) -> int:
  """One point less for each word beyond the items of the answer and the closing word that was asked for."""
  needed = len(task.answer) + (task.closing is not None)
  return max(LOW, HIGH - max(0, count_words(response) - needed))


def plainness(task: Task, response: str) -> int:
  """Two points less for each token that ends in an exclamation or a question mark."""
  del task
  return max(LOW, HIGH - 2 * sum(token.endswith(("!", "?")) for token in response.split()))


def consistency(task: Task, response: str) -> int:
  """Share of the gaps between items that look alike, in quarters, whatever was asked; 0 without items."""
  gaps = [tuple(gap) for gap in _gaps(task, response.split())]
  if not gaps:
    return HIGH * any(token in task.domain.forms for token in response.split())
  return HIGH * max(map(gaps.count, gaps)) // len(gaps)


GRADERS: Mapping[str, Callable[[Task, str], int]] = MappingProxyType(
  {
    "helpfulness": helpfulness,
    "correctness": correctness,
    "instruction_following": instruction_following,
    "brevity": brevity,
    "plainness": plainness,
    "consistency": consistency,
  }
)
"""Dimension -> grader; a world of n dimensions has the first n."""

DIMENSIONS = tuple(GRADERS)[:3]
"""Those of the default world."""


def dimensions_of(spec: WorldSpec) -> tuple[str, ...]:
  """Names of a world's scores, in the order of the graders."""
  return tuple(GRADERS)[: spec.dimensions]


def grade(task: Task, response: str, dimensions: Sequence[str] = DIMENSIONS) -> dict[str, int]:
  """The grades of a response.

  Args:
    task: what was asked; `parse(question)` gives it for a record's prompt.
    response: any text, without chat markup.
    dimensions: to grade it in, of GRADERS.

  Returns:
    dimension -> integer in [LOW, HIGH].
  """
  return {dimension: GRADERS[dimension](task, response) for dimension in dimensions}


def count_words(response: str) -> int:
  """Number of tokens with a letter or a digit; separators are free."""
  return sum(any(map(str.isalnum, token)) for token in response.split())


def _common(left: Sequence[str], right: Sequence[str]) -> int:
  """Length of the longest common subsequence."""
  lengths = [0] * (len(right) + 1)
  for word in left:
    above = lengths.copy()
    for j, other in enumerate(right, start=1):
      lengths[j] = above[j - 1] + 1 if word == other else max(above[j], lengths[j - 1])
  return lengths[-1]


def _layout(task: Task, response: str) -> int:
  gaps = _gaps(task, response.split())
  return 2 * gaps.count([LAYOUTS[task.layout]]) // max(len(gaps), 1)


def _gaps(task: Task, tokens: Sequence[str]) -> list[Sequence[str]]:
  """What stands between each item and the next."""
  places = [i for i, token in enumerate(tokens) if token in task.domain.forms]
  return [tokens[i + 1 : j] for i, j in itertools.pairwise(places)]


def _ending(closing: str, response: str) -> int:
  tokens = response.split()
  return (closing in tokens) + (tokens[-1:] == [closing])


def _length(max_words: int, response: str) -> int:
  return 2 - 2 * max(0, count_words(response) - max_words)

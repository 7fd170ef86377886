"""What is scored of a record: all of its responses, each once, in pairs that pass through the streams of training.

    scoring = SCORING_RULES["derived"]       # takes the place of the rule "derived"
    scoring.places(record, ranges)           # [(preferred, other), (other, other), ...]: numbers of the responses
    scoring(record, ranges)                  # the pairs of these

A context's prompt may ask for a score, in training that of the pair's chosen response. Here it is the score of the
record's *preferred* response for all of them, so that all responses of a record answer the same prompts.
"""

import dataclasses
from collections.abc import Callable

from amopo_jax.data.pairs import RULES, ScoreRanges, best
from amopo_jax.data.records import Pair, Record, Response


@dataclasses.dataclass(frozen=True)
class EveryResponse:
  """A rule that leaves nothing out: no tie, no repeated text, no record without an order.

  Attributes:
    preferred: number of the response that the others are compared with.
  """

  preferred: Callable[[Record, ScoreRanges], int]

  def places(self, record: Record, ranges: ScoreRanges) -> list[tuple[int, int]]:
    """Which responses make which pair: the preferred one first, the others in the order of the record, two by two.

    Args:
      record: any record.
      ranges: the dimensions that may say what is preferred.

    Returns:
      Numbers of the responses. An odd one is paired with itself and counts once.

    Raises:
      InputError: a score that the preference needs is missing or out of range.
    """
    first = self.preferred(record, ranges)
    order = [first, *(number for number in range(len(record.responses)) if number != first)]
    return [(order[place], order[min(place + 1, len(order) - 1)]) for place in range(0, len(order), 2)]

  def __call__(self, record: Record, ranges: ScoreRanges) -> list[Pair]:
    """The pairs of `places`. All responses carry the preferred one's scores, which are what the prompts ask for."""
    places = self.places(record, ranges)
    asked = record.responses[places[0][0]].scores
    posed = [Response(response.content, asked) for response in record.responses]

    def pair(one: int, two: int) -> Pair:
      others = tuple(response for number, response in enumerate(posed) if number not in (one, two))
      return Pair(record.prompt, posed[one], posed[two], record.origin, others, record.wanted)

    return [pair(one, two) for one, two in places]


def _chosen_or_best(record: Record, ranges: ScoreRanges) -> int:
  return _best_or_first(record, ranges) if record.chosen is None else record.chosen


def _best_or_first(record: Record, ranges: ScoreRanges) -> int:
  return best(record, ranges) if ranges else record.chosen or 0


_PREFERENCES = {"derived": _chosen_or_best, "annotated": _chosen_or_best}
"""What a rule of `pairs.RULES` prefers; the others go by the scores."""

SCORING_RULES = {name: EveryResponse(_PREFERENCES.get(name, _best_or_first)) for name in RULES}
"""What scoring does under each name of `config.data.rule`."""

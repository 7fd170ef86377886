"""Rules that choose the pairs of a record: which two responses, and which of them is preferred.

Every rule is a function of the record and of the score ranges of the dimensions that the contexts use. Scores
are normalised to [0, 1] before they are averaged, so that a 1-to-5 dimension does not outweigh a 0-to-1 one:

    mean(y) = 1/D sum_d (score_d(y) - low_d) / (high_d - low_d)

Two responses with the same text make no pair: their margin is zero whatever the policy.
"""

import itertools
from collections.abc import Callable, Mapping

from amopo_jax.data.records import Number, Pair, Record, Response, score_in_range
from amopo_jax.types import InputError

ScoreRanges = Mapping[str, tuple[Number, Number]]
"""dimension -> (low, high); `ContextSpec.ranges` is the usual source."""

Rule = Callable[[Record, ScoreRanges], list[Pair]]
"""Chooses the pairs of a record; an empty list where the scores do not order the responses."""


def annotated(record: Record, ranges: ScoreRanges) -> list[Pair]:
  """The annotators' choice against each of the other responses; the scores have no say.

  Args:
    record: must have `chosen`.
    ranges: not used.

  Returns:
    One pair less than the record has different responses.

  Raises:
    InputError: the record does not say which response was chosen.
  """
  if record.chosen is None:
    raise InputError(f"{record.origin}: no 'chosen', which rule 'annotated' needs; use 'mean_score'")
  others = [number for number in range(len(record.responses)) if number != record.chosen]
  return _pairs(record, [(record.chosen, other) for other in others])


def mean_score(record: Record, ranges: ScoreRanges) -> list[Pair]:
  """The best against the worst response by mean normalised score.

  Among equals the first response counts as the best, and the first as the worst.

  Args:
    record: all responses must have a score in each dimension of `ranges`.
    ranges: the dimensions to average over.

  Returns:
    One pair, or none if all responses have the same mean.

  Raises:
    InputError: missing score, score out of range, or no dimension at all.
  """
  means = _means(record, ranges)
  best, worst = means.index(max(means)), means.index(min(means))
  return _pairs(record, [(best, worst)] if _above(means[best], means[worst]) else [])


def best(record: Record, ranges: ScoreRanges) -> int:
  """Number of the response with the highest mean normalised score, the first among equals; as `mean_score`."""
  means = _means(record, ranges)
  return next(number for number, mean in enumerate(means) if not _above(max(means), mean))


def all_pairs(record: Record, ranges: ScoreRanges) -> list[Pair]:
  """Every two responses with different mean normalised scores, the higher one chosen.

  Args:
    record: all responses must have a score in each dimension of `ranges`.
    ranges: the dimensions to average over.

  Returns:
    At most n (n - 1) / 2 pairs of n responses, in the order of the responses.

  Raises:
    InputError: missing score, score out of range, or no dimension at all.
  """
  means = _means(record, ranges)
  twos = (sorted(two, key=lambda number: -means[number]) for two in itertools.combinations(range(len(means)), 2))
  return _pairs(record, [(high, low) for high, low in twos if _above(means[high], means[low])])


def dominance(record: Record, ranges: ScoreRanges) -> list[Pair]:
  """The pairs on which the dimensions agree: none prefers the rejected response, at least one the chosen.

  Args:
    record: all responses must have a score in each dimension of `ranges`.
    ranges: the dimensions that must agree.

  Returns:
    The pairs of `all_pairs` in which no dimension is inverted; ties in a dimension are allowed.

  Raises:
    InputError: missing score, score out of range, or no dimension at all.
  """

  def agrees(pair: Pair) -> bool:
    return all(pair.chosen.scores[name] >= pair.rejected.scores[name] for name in ranges)

  return [pair for pair in all_pairs(record, ranges) if agrees(pair)]


def both_ways(record: Record, ranges: ScoreRanges) -> list[Pair]:
  """Every response as the chosen one in turn: for supervised fine-tuning that learns what each score looks like.

  A context asks for the score of the pair's chosen response, so each response is learnt under its own scores
  (SteerLM, arXiv 2310.05344). Of the objectives of preferences those with the tie policy `mask_equal` make sense of
  these pairs: they prefer the response whose scores were asked for.

  Args:
    record: any record.
    ranges: not used.

  Returns:
    As many pairs as the record has responses; the next different response is the rejected one.
  """
  count = len(record.responses)
  text = lambda number: record.responses[number % count].content
  following = lambda one: next((n % count for n in range(one + 1, one + count) if text(n) != text(one)), None)
  return _pairs(record, [(one, other) for one in range(count) if (other := following(one)) is not None])


def derived(record: Record, ranges: ScoreRanges) -> list[Pair]:
  """`annotated` where the record says what was chosen, else `mean_score`: the default.

  Args:
    record: any record.
    ranges: the dimensions to average over where nothing was chosen.

  Returns:
    The pairs of the rule that applies.

  Raises:
    InputError: as the rule that applies.
  """
  return mean_score(record, ranges) if record.chosen is None else annotated(record, ranges)


RULES: dict[str, Rule] = {
  "derived": derived,
  "annotated": annotated,
  "mean_score": mean_score,
  "all_pairs": all_pairs,
  "dominance": dominance,
  "both_ways": both_ways,
}
"""The rules by their configuration names."""

_TIE = 1e-9
"""Means closer than this are equal: averages of thirds and fifths do not come out exact."""


def _pairs(record: Record, numbers: list[tuple[int, int]]) -> list[Pair]:
  both = [(record.responses[chosen], record.responses[rejected]) for chosen, rejected in numbers]
  return [
    Pair(record.prompt, chosen, rejected, record.origin, wanted=record.wanted)
    for chosen, rejected in both
    if chosen.content != rejected.content
  ]


def _above(mean: float, other: float) -> bool:
  return mean > other + _TIE


def _means(record: Record, ranges: ScoreRanges) -> list[float]:
  if not ranges:
    raise InputError(f"{record.origin}: nothing orders the responses: no 'chosen', no context with a dimension")
  return [_mean(response, ranges, record.origin) for response in record.responses]


def _mean(response: Response, ranges: ScoreRanges, origin: str) -> float:
  scores = [
    (score_in_range(response, name, low, high, origin) - low) / (high - low) for name, (low, high) in ranges.items()
  ]
  return sum(scores) / len(scores)

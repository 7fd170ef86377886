"""Which leaves of which pairs go into which row of a group: little padding, few prefixes written twice.

A group is a handful of rows. The oldest pending pair is always taken, so that none waits for ever; beyond it each
row is filled with the least waste, padding plus prefixes repeated. Two means: whole pairs whose sizes add up to the
gap (a subset sum over the pending pairs, kept as bits of integers), or one pair that is split between this row and
the next. A pair larger than a row is spread over several. Leaves are only ever cut into contiguous runs of their
depth-first order, where neighbours share the most. Everything is deterministic.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from amopo_jax.data.encoded import EncodedPair, Leaf
from amopo_jax.data.trie import prompts_in_order
from amopo_jax.types import InputError


class Sized:
  """A pair with the sizes of its parts.

  Attributes:
    encoded: the pair.
    leaves: its leaves in depth-first order.
    sizes: `sizes[a][b]` tokens of the trie of `leaves[a:b]`.
  """

  def __init__(self, encoded: EncodedPair):
    self.encoded = encoded
    self._shared = dict(prompts_in_order(encoded, encoded.leaves))
    rank = {context: place for place, context in enumerate(self._shared)}
    self.leaves: tuple[Leaf, ...] = tuple(sorted(encoded.leaves, key=lambda leaf: (rank[leaf[0]], leaf[1])))
    self.sizes = [self._sizes_from(start) for start in range(len(self.leaves) + 1)]

  @property
  def whole(self) -> int:
    """Tokens of the whole trie."""
    return self.sizes[0][-1]

  def fits(self, rows: int, row_length: int) -> bool:
    """Whether empty rows hold the pair.

    Args:
      rows: how many there are.
      row_length: tokens of a row.

    Returns:
      True if they do.
    """
    return self.encoded.longest <= row_length and self.rows_needed(0, row_length) <= rows

  def rows_needed(self, start: int, row_length: int) -> int:
    """Empty rows that `leaves[start:]` take when each is filled as far as it goes.

    Args:
      start: first leaf, below the number of leaves.
      row_length: tokens of a row, at least those of the longest sequence.

    Returns:
      Number of rows.
    """
    count = 0
    while start < len(self.leaves):
      start = self.furthest(start, row_length)
      count += 1
    return count

  def furthest(self, start: int, room: int) -> int:
    """Largest stop such that `leaves[start:stop]` take no more than `room` tokens.

    Args:
      start: first leaf.
      room: tokens.

    Returns:
      The stop; `start` if not even one leaf fits.
    """
    fitting = [stop for stop in range(start, len(self.leaves) + 1) if self.sizes[start][stop] <= room]
    return fitting[-1]

  def _sizes_from(self, start: int) -> list[int]:
    """Sizes of the runs that begin at `start`, for every stop; 0 for a stop before it."""
    sizes, context = [0] * (start + 1), None
    for place in range(start, len(self.leaves)):
      k, p = self.leaves[place]
      more = len(self.encoded.responses[p])
      if k != context:
        more += len(self.encoded.prompts[k]) - (self._shared[k] if context is not None else 0)
      sizes.append(sizes[-1] + more)
      context = k
    return sizes


class Run(NamedTuple):
  """Consecutive leaves of a pending pair, `leaves[start:stop]`."""

  pair: int
  start: int
  stop: int


class _Choice(NamedTuple):
  """One way to fill a row: its runs, what of a split pair is still to be placed, and the tokens it wastes."""

  waste: int
  runs: tuple[Run, ...]
  rest: Run | None


def plan_group(pending: Sequence[Sized], *, rows: int, row_length: int, max_pairs: int) -> list[tuple[Run, ...]]:
  """Fills the rows of one group.

  Args:
    pending: the pairs that wait, oldest first; at least one.
    rows: rows of the group.
    row_length: tokens of a row.
    max_pairs: most pairs in the group.

  Returns:
    The runs of each row, numbered by their place in `pending`. Every pair that occurs, occurs with all its leaves.

  Raises:
    InputError: the oldest pair does not fit into the group.
  """
  oldest = pending[0]
  if not oldest.fits(rows, row_length):
    raise InputError(
      f"{oldest.encoded.origin}: {oldest.whole} tokens do not fit into {rows} rows of {row_length}; "
      "use more or longer rows, or a smaller max_length"
    )
  plan: list[tuple[Run, ...]] = []
  left, rest = list(range(1, len(pending))), Run(0, 0, len(oldest.leaves))
  for rows_left in range(rows, 0, -1):
    places = max_pairs - (len(pending) - len(left))
    if rest is None and left and places > 0 and _needs_rows(pending[left[0]], rows_left, row_length):
      rest = Run(left[0], 0, len(pending[left[0]].leaves))
      left, places = left[1:], places - 1
    choice = _fill(pending, left, rest, rows_left, row_length, places)
    plan.append(choice.runs)
    rest = choice.rest
    taken = {run.pair for run in choice.runs}  # of a split pair, too, a part is in this row
    left = [number for number in left if number not in taken]
  return plan


def _needs_rows(oldest: Sized, rows_left: int, row_length: int) -> bool:
  """Whether the pair that waits longest is too large for any one row, and this is a place for it."""
  return oldest.whole > row_length and oldest.fits(rows_left, row_length)


def _fill(
  pending: Sequence[Sized], left: list[int], rest: Run | None, rows_left: int, row_length: int, places: int
) -> _Choice:
  """The way to fill the next row that wastes least; among equals the first."""
  sums = _SubsetSums([pending[number].whole for number in left], row_length, places)

  def choices() -> Iterator[_Choice]:
    for opening, gap in _openings(pending, rest, rows_left, row_length):
      total = sums.best(gap)
      wholes = tuple(Run(left[place], 0, len(pending[left[place]].leaves)) for place in sums.members(total))
      yield _Choice(opening.waste + gap - total, opening.runs + wholes, opening.rest)
      if opening.rest is None and rows_left > 1 and places > 0:
        for split in _splits(pending, left, gap, row_length):
          yield _Choice(opening.waste + split.waste, opening.runs + split.runs, split.rest)

  return min(choices(), key=lambda choice: choice.waste)


def _openings(
  pending: Sequence[Sized], rest: Run | None, rows_left: int, row_length: int
) -> Iterator[tuple[_Choice, int]]:
  """What a row may begin with, and the gap that it leaves: the rest of a split pair, or as much of it as may be."""
  if rest is None:
    yield _Choice(0, (), None), row_length
    return
  pair = pending[rest.pair]
  last = min(pair.furthest(rest.start, row_length), rest.stop)
  for stop in range(last, rest.start, -1):
    size = pair.sizes[rest.start][stop]
    if stop == rest.stop:
      yield _Choice(0, (rest,), None), row_length - size
      return
    if pair.rows_needed(stop, row_length) < rows_left:
      repeated = size + pair.sizes[stop][rest.stop] - pair.sizes[rest.start][rest.stop]
      yield _Choice(repeated, (rest._replace(stop=stop),), rest._replace(start=stop)), row_length - size


def _splits(pending: Sequence[Sized], left: list[int], gap: int, row_length: int) -> Iterator[_Choice]:
  """Every pair cut in two, one half for the gap and the other for the next row."""
  for number in left:
    pair = pending[number]
    end = len(pair.leaves)
    for cut in range(1, end):
      head, tail = Run(number, 0, cut), Run(number, cut, end)
      head_size, tail_size = pair.sizes[0][cut], pair.sizes[cut][end]
      repeated = head_size + tail_size - pair.whole
      if head_size <= gap and tail_size <= row_length:
        yield _Choice(gap - head_size + repeated, (head,), tail)
      if tail_size <= gap and head_size <= row_length:
        yield _Choice(gap - tail_size + repeated, (tail,), head)


class _SubsetSums:
  """Sums that some of the sizes reach: bit s of `reached[c]` says that c of them add up to s.

  Args:
    sizes: tokens.
    limit: largest sum of interest.
    most: most summands.
  """

  def __init__(self, sizes: Sequence[int], limit: int, most: int):
    self._sizes = sizes
    mask = (1 << (limit + 1)) - 1
    self._history = [[1] + [0] * min(most, len(sizes))]
    for size in sizes:
      reached = self._history[-1]
      longer = [(sums << size) & mask if size <= limit else 0 for sums in reached[:-1]]
      self._history.append([reached[0], *(old | new for old, new in zip(reached[1:], longer, strict=True))])

  def best(self, gap: int) -> int:
    """The largest sum that is at most `gap`."""
    mask = (1 << (gap + 1)) - 1
    return max((sums & mask).bit_length() for sums in self._history[-1]) - 1

  def members(self, total: int) -> list[int]:
    """Numbers of the sizes that add up to a reached sum: as few as possible, the oldest possible."""
    count = next(count for count, sums in enumerate(self._history[-1]) if sums >> total & 1)
    members = []
    for number in range(len(self._sizes), 0, -1):
      if not self._history[number - 1][count] >> total & 1:
        members.append(number - 1)
        total -= self._sizes[number - 1]
        count -= 1
    return members[::-1]

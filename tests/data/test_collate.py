import numpy as np
import pytest

from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.fit import Sized
from amopo_jax.data.pack import PackSpec, empty_group, pack_group
from amopo_jax.types import NO_SLOT, InputError

PACK = PackSpec(60, 2, 3, 2)


@pytest.fixture
def groups(random_pair):
  rng = np.random.default_rng(0)
  made = [pack_group([Sized(random_pair(rng, 2, index=3 * g + n)) for n in range(2)], PACK)[0] for g in range(3)]
  return [*made, empty_group(PACK)]


def test_shapes_and_order(groups):
  batch = collate(groups, accumulation=2, num_pairs=6)
  assert batch.rows.tokens.shape == (2, 2 * 2, 60)
  assert batch.pairs.is_ordered.shape == (2, 2 * 3, 2)
  np.testing.assert_array_equal(batch.rows.tokens[1, :2], groups[2].rows.tokens)
  np.testing.assert_array_equal(batch.index, [[0, 1, -1, 3, 4, -1], [6, 7, -1, -1, -1, -1]])
  np.testing.assert_array_equal(batch.pairs.score_gap[0, 3:], groups[1].score_gap)


def test_weights_sum_to_one_over_the_step(groups):
  weight = collate(groups, accumulation=2, num_pairs=count_pairs(groups)).pairs.weight
  assert weight.dtype == np.float32
  assert weight.sum() == pytest.approx(1)
  assert ((weight > 0) == (collate(groups, accumulation=2, num_pairs=6).index >= 0)).all()


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_slots_count_the_pairs_of_the_micro_batch(groups, accumulation):
  batch = collate(groups, accumulation=accumulation, num_pairs=6)
  for slots, index in zip(batch.rows.slot, batch.index, strict=True):
    scored = np.unique(slots[slots != NO_SLOT])
    expected = [place * 4 + leaf for place in np.flatnonzero(index >= 0) for leaf in range(4)]
    np.testing.assert_array_equal(scored, expected)


def test_slots_follow_those_of_other_processes(groups):
  alone = collate(groups, accumulation=2, num_pairs=6)
  later = collate(groups, accumulation=2, num_pairs=6, places=(5, 7))
  moved = alone.rows.slot != NO_SLOT
  shift = np.repeat([5, 7 - 1], PACK.rows)[None, :, None] * PACK.max_pairs * 2 * 2
  np.testing.assert_array_equal((later.rows.slot - shift)[moved], alone.rows.slot[moved])
  assert (later.rows.slot[~moved] == NO_SLOT).all()


def test_groups_are_left_as_they_are(groups):
  before = groups[1].rows.slot.copy()
  collate(groups, accumulation=1, num_pairs=6)
  np.testing.assert_array_equal(groups[1].rows.slot, before)


def test_accumulation_that_does_not_divide_is_refused(groups):
  with pytest.raises(InputError, match="3 micro-batches do not divide 4 streams"):
    collate(groups, accumulation=3, num_pairs=6)

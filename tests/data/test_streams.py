import numpy as np
import pytest

from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.layout import Layout
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.streams import PackedStreams, order_pairs
from amopo_jax.data.survey import survey
from amopo_jax.types import InputError

PACK = PackSpec(256, 4, 8, 3)


def indices(order, positions):
  return [order[position].index for position in positions]


def order(datasets, *, seed=0, num_epochs=None, shuffle=True, weights=None):
  return order_pairs(datasets, weights, seed=seed, num_epochs=num_epochs, shuffle=shuffle)


@pytest.fixture(scope="module")
def small(tmp_path_factory, write_records, make_recipe):
  recipe = make_recipe(write_records(tmp_path_factory.mktemp("small") / "small.jsonl", 5, seed=1))
  return PairDataset(recipe, survey(recipe).table)


def test_every_epoch_has_every_pair_once_in_a_new_order(dataset):
  epochs = [indices(order([dataset]), range(23 * e, 23 * (e + 1))) for e in range(3)]
  assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 3


def test_seeds_give_different_orders_also_across_epochs(dataset):
  orders = [tuple(indices(order([dataset], seed=s), range(23 * e, 23 * (e + 1)))) for s in range(3) for e in range(3)]
  assert len(set(orders)) == 9


def test_without_shuffling_the_order_is_that_of_the_file(dataset):
  assert indices(order([dataset], shuffle=False), range(25)) == [*range(23), 0, 1]


def test_epochs_limit_the_length(dataset):
  assert len(order([dataset], num_epochs=2)) == 46


def test_data_sets_are_mixed_by_weight_and_keep_their_numbers(dataset, small):
  small = PairDataset(small.recipe, small.table, first=23)
  mixed = order([dataset, small], weights=[1.0, 3.0])
  found = np.asarray(indices(mixed, range(40)))
  assert (found >= 23).sum() == 30
  assert sorted(found[found >= 23][:5]) == list(range(23, 28))  # each begins anew only when it ends
  assert mixed[int(np.flatnonzero(found == 24)[0])].origin.endswith("small.jsonl:2")


def test_without_weights_a_mixed_epoch_has_every_pair_once(dataset, small):
  mixed = order([dataset, PairDataset(small.recipe, small.table, first=23)], num_epochs=2)
  assert len(mixed) == 56
  assert sorted(indices(mixed, range(28))) == list(range(28))


def test_contexts_are_drawn_anew_in_every_epoch_and_depend_on_seed_and_position_alone(dataset):
  drawing = dataset.laying_out(Layout(contexts=1))
  drawn = lambda seed: [order([drawing], seed=seed)[position].leaves[0][0] for position in range(46)]
  index = indices(order([drawing]), range(46))
  assert index == indices(order([dataset]), range(46))
  by_pair = {
    number: [context for i, context in zip(index, drawn(0), strict=True) if i == number] for number in range(23)
  }
  assert 9 <= sum(len(set(contexts)) == 2 for contexts in by_pair.values()) <= 21  # of 23, two thirds in the mean
  assert drawn(0) == drawn(0) != drawn(1)
  assert set(drawn(0)) == {0, 1, 2}
  assert order([drawing])[17].leaves == order([drawing], num_epochs=1)[17].leaves


def test_weights_must_match(dataset, small):
  with pytest.raises(InputError, match="3 weights for 2 data sets"):
    order([dataset, small], weights=[1, 2, 3])


def test_lockstep_emits_each_stream_with_the_state_after_it(dataset):
  begin = {stream: {"next": stream, "pending": []} for stream in (0, 2)}
  streams = iter(PackedStreams(order([dataset]), PACK, 3, 4, begin))
  first = next(streams)
  assert set(first) == {0, 2}
  for stream, (group, state) in first.items():
    read = set(range(stream, state["next"], 3))
    taken = group.index[group.index >= 0].tolist()
    assert sorted(indices(order([dataset]), read - set(state["pending"]))) == sorted(taken)
  assert streams.get_state() == {"streams": {str(stream): state for stream, (_, state) in first.items()}}


def test_iterator_goes_on_from_its_state(dataset):
  make = lambda: iter(PackedStreams(order([dataset]), PACK, 1, 4, {0: {"next": 0, "pending": []}}))
  one, two = make(), make()
  for _ in range(9):
    next(one)
  two.set_state(one.get_state())
  np.testing.assert_array_equal(next(one)[0][0].rows.tokens, next(two)[0][0].rows.tokens)

"""Splits of real files, through the door that runs use."""

import dataclasses

import numpy as np
import pytest

from amopo_jax import build_data
from amopo_jax.policy import find_policy
from amopo_jax.types import InputError


def source_of(spec):
  return find_policy(spec.model.path, dict(spec.model.arch))


def test_a_held_out_share_takes_whole_records_and_follows_its_own_seed(make_spec):
  split = lambda seed: build_data.build_data(
    spec := make_spec(data__heldout={}, data__heldout_fraction=0.25, data__rule="all_pairs", data__split_seed=seed),
    source_of(spec),
  )
  found = split(0)
  kept, out = ({int(record) for record in part[0].table[:, 0]} for part in (found.train, found.heldout))
  assert kept.isdisjoint(out)
  assert len(out) == int(np.ceil(0.25 * len(kept | out)))
  assert {int(record) for record in split(0).heldout[0].table[:, 0]} == out
  assert {int(record) for record in split(1).heldout[0].table[:, 0]} != out


def test_the_seed_of_the_run_does_not_move_the_split(make_spec):
  spec = make_spec(data__heldout={}, data__heldout_fraction=0.25)
  one, other = (build_data.build_data(dataclasses.replace(spec, seed=seed), source_of(spec)) for seed in (0, 1))
  np.testing.assert_array_equal(one.heldout[0].table, other.heldout[0].table)


def repeated(world, path):
  """A file with every prompt of the world's three times; a third of the records stand together."""
  lines = (world / "train.jsonl").read_text().splitlines()
  path.write_text("".join(line + "\n" for line in [line for line in lines for _ in range(2)] + lines))
  return {"path": str(path), "format": "native", "weight": 1.0}


def prompts_of(datasets):
  return {dataset.pair(index).prompt for dataset in datasets for index in range(len(dataset))}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("with_another_source", [False, True])
def test_records_of_one_prompt_are_on_one_side_of_the_split(make_spec, world, tmp_path, seed, with_another_source):
  more = {"data__train__more": repeated(world, tmp_path / "more.jsonl")} if with_another_source else {}
  once = {"data__train__world": repeated(world, tmp_path / "train.jsonl")}
  spec = make_spec(data__heldout={}, data__heldout_fraction=0.25, data__split_seed=seed, **once, **more)
  found, again = (build_data.build_data(spec, source_of(spec)) for _ in range(2))
  kept, out = prompts_of(found.train), prompts_of(found.heldout)
  assert kept.isdisjoint(out)
  assert len(out) == int(np.ceil(0.25 * len(kept | out)))
  assert prompts_of(again.heldout) == out


def test_a_source_whose_prompts_are_all_trained_on_elsewhere_holds_out_none(make_spec, world, tmp_path):
  whole = make_spec(data__heldout={}, data__heldout_fraction=0.25)
  trained_on = build_data.build_data(whole, source_of(whole)).train[0]
  line = (world / "train.jsonl").read_text().splitlines()[int(trained_on.table[0, 0])]
  (tmp_path / "one.jsonl").write_text(line + "\n")
  one = {"path": str(tmp_path / "one.jsonl"), "format": "native", "weight": 1.0}
  spec = make_spec(data__heldout={}, data__heldout_fraction=0.25, data__train__one=one)
  found = build_data.build_data(spec, source_of(spec))
  assert [len(found.train), len(found.heldout)] == [2, 1]


def test_holding_out_everything_is_refused(make_spec):
  spec = make_spec(data__heldout={}, data__heldout_fraction=0.999)
  with pytest.raises(InputError, match="holds out every record; give more data"):
    build_data.build_data(spec, source_of(spec))

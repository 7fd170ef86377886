import pytest

from amopo_jax.plan.changes import (
  adapter_changes,
  free_changes,
  least_memory,
  most_accumulation,
  on_all_chips,
  override,
  state_changes,
)
from amopo_jax.types import InputError


@pytest.fixture
def spec(make_spec):
  return make_spec(batch__rows=16, batch__group_rows=2, batch__row_length=128, model__remat="dots")


def test_overrides_are_checked_as_on_the_command_line(spec):
  assert override(spec, {"batch.accumulation": 4, "model.remat": "none"}).batch.accumulation == 4
  assert override(spec, {}) == spec
  with pytest.raises(InputError, match=r"config\.batch\.row: unknown key"):
    override(spec, {"batch.row": 1})


@pytest.mark.parametrize("shards, wanted", [(1, 8), (2, 8), (4, 4), (16, 1), (32, 1)])
def test_micro_batches_leave_every_chip_a_row_and_every_stream_its_group(spec, shards, wanted):
  assert most_accumulation(spec, shards) == wanted


def test_free_changes_come_alone_then_together_then_with_split_layers(spec):
  assert least_memory(spec, 4) == {"model.remat": "full", "batch.accumulation": 4}
  assert free_changes(spec, 4) == [
    {"model.remat": "full"},
    {"batch.accumulation": 4},
    {"model.remat": "full", "batch.accumulation": 4},
    {"model.remat": "full", "batch.accumulation": 4, "optim.offload": True},
    {"model.remat": "full", "batch.accumulation": 8, "mesh.tensor": 2},
    {"model.remat": "full", "batch.accumulation": 4, "mesh.tensor": 4},
  ]


def test_copies_are_split_first(make_spec):
  copies = make_spec(batch__rows=16, batch__group_rows=2, mesh__data=4, mesh__fsdp=1, model__remat="full")
  split = {"mesh.data": 1, "mesh.fsdp": -1}
  assert free_changes(copies, 4)[:3] == [split, {"batch.accumulation": 4}, split | {"batch.accumulation": 4}]


def test_on_more_chips_no_size_of_before_stands_in_the_way(make_spec):
  assert on_all_chips(make_spec(), 1, 1) == {}
  fixed = make_spec(mesh__data=2, mesh__slices=2, mesh__fsdp=4)
  assert on_all_chips(fixed, 1, 2) == {"mesh.data": 1, "mesh.fsdp": -1, "mesh.context": 2, "mesh.slices": 1}
  assert free_changes(fixed, 8)[-1]["mesh.fsdp"] == -1


def test_what_is_set_already_is_no_change(make_spec):
  spec = make_spec(batch__rows=4, batch__group_rows=4, model__remat="full")
  assert least_memory(spec, 4) == {}
  assert {"model.param_dtype": "bfloat16"} in state_changes(spec, 4)
  assert all("batch.rows" not in change for change in state_changes(spec, 4))  # a row per chip is the least


def test_every_change_makes_a_config_that_is_valid(spec):
  for change in (*free_changes(spec, 4), *state_changes(spec, 4)):
    assert override(spec, change) != spec


def test_adapters_come_on_ever_smaller_bases(spec):
  changed = [override(spec, change) for change in adapter_changes(spec)]
  assert [one.lora.base_dtype for one in changed] == ["bfloat16", "int8", "nf4"]
  assert all(one.lora.rank for one in changed)

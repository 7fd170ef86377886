import pytest

from amopo_jax.plan.case import check_cases
from amopo_jax.plan.topology import parse_topology
from amopo_jax.types import InputError


def test_a_run_is_where_its_mesh_says(case):
  found = case(mesh__tensor=2)
  assert dict(found.mesh.shape)["fsdp"] == 2
  assert found.overrides == {}
  assert found.parts.spec == found.spec
  assert found.num_contexts == 2


def test_rows_may_follow_the_chips(case):
  found = case("v5e:2x4", rows_per_chip=3, batch__accumulation=2)
  assert found.overrides == {"batch.rows": 48, "batch.group_rows": 2, "batch.max_pairs": 0}
  assert found.spec.batch.rows == 48


def test_slices_hold_replicas(case):
  found = case("2*v5e:2x2", rows_per_chip=1)
  assert found.overrides["mesh.data"] == 2
  assert dict(found.mesh.shape)["fsdp"] == 4
  replicas = found.mesh.devices.reshape(2, -1)
  assert [{device.slice_index for device in replica} for replica in replicas] == [{0}, {1}]


def test_gpus_have_a_mesh_without_devices_and_nothing_to_compile(make_spec):
  [found] = check_cases(make_spec(), [parse_topology("h100:4")], 0)
  assert found.parts is None
  assert found.mesh.size == 4


@pytest.mark.parametrize(
  "topology, message",
  [
    ("h100:3", r"h100:3: config\.batch: 8 rows .* do not divide over 3 .*; --rows_per_chip=1 chooses rows"),
    ("v5e:4x4", r"v5e:4x4: config\.batch: 8 rows per micro-batch do not divide over 16"),
  ],
)
def test_a_run_that_cannot_be_there_says_on_which_topology(make_spec, tpu_devices, topology, message):
  tpu_devices("v5e:2x2")
  with pytest.raises(InputError, match=message):
    check_cases(make_spec(), [parse_topology("v5e:2x2"), parse_topology(topology)], 0)


def test_no_file_is_opened_and_nothing_is_fetched(make_spec, world):
  source = {"path": "no/such.jsonl", "format": "native", "weight": 1.0}
  spec = make_spec(model__path="no/such", data__train__world=source, data__tokenizer="no/such")
  [found] = check_cases(spec, [parse_topology("h100:2")], 0)
  assert found.config.width == 32

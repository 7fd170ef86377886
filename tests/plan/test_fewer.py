import pytest

from amopo_jax.plan.fewer import case_cost, smaller_cases
from amopo_jax.plan.topology import parse_topology, smaller_topologies

POD = {"batch__rows": 32, "batch__group_rows": 8}


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
  """The tiny model cannot be split into more than 32 parts."""
  monkeypatch.setattr("amopo_jax.plan.fewer._LEAST_PARTS", 4)


def names(cases):
  return [case.topology.name for case in cases]


def test_smaller_slices_keep_their_number():
  assert [one.name for one in smaller_topologies(parse_topology("2*v5e:4x4"))] == [
    "2*v5e:1x1",
    "2*v5e:2x2",
    "2*v5e:2x4",
  ]


@pytest.mark.parametrize(
  "topology, options, wanted",
  [
    ("v5e:4x8", {}, ["v5e:2x2", "v5e:2x4"]),
    ("v5e:2x4", {}, []),  # too few for two smaller ones
    ("v5e:4x8", {"mesh__tensor": 2}, ["v5e:2x4", "v5e:4x4"]),
  ],
)
def test_a_pod_is_counted_on_two_smaller_slices(case, topology, options, wanted):
  found = smaller_cases(case(topology, rows_per_chip=1, **POD, **options))
  assert names(found) == wanted
  assert [one.spec.batch.rows for one in found] == [one.mesh.shape["fsdp"] for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"batch__accumulation": 2, "batch__rows": 64}])
def test_two_small_slices_tell_the_cost_of_a_large_one(case, monkeypatch, options):
  found = case("v5e:4x8", **(POD | {"batch__max_pairs": 64} | options))
  extrapolated, _ = case_cost(found, 0.5)
  monkeypatch.setattr("amopo_jax.plan.fewer.smaller_cases", lambda case: [])
  counted, _ = case_cost(found, 0.5)
  assert extrapolated.flops == pytest.approx(counted.flops, rel=0.03)
  assert extrapolated.memory_bytes == pytest.approx(counted.memory_bytes, rel=0.1)
  assert extrapolated.link_bytes == pytest.approx(counted.link_bytes, rel=0.1)

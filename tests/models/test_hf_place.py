import jax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from amopo_jax.models.hf_names import Leaf
from amopo_jax.models.hf_place import by_file_rows


@pytest.fixture
def whole():
  """A sharding that says nothing of rows, over 2 x 4 devices."""
  return NamedSharding(Mesh(jax.make_mesh((2, 4), ("data", "fsdp")).devices, ("data", "fsdp")), PartitionSpec())


def leaf(*shape, path=("embed", "weight"), transposed=False):
  return Leaf(path=path, shape=shape, names=("a",), is_transposed=transposed)


@pytest.mark.parametrize(
  ("rows", "axes"),
  [(16, ("data", "fsdp")), (12, ("fsdp",)), (6, ("data",)), (7, None)],
  ids=["all", "the larger one", "the one that divides", "none"],
)
def test_rows_are_split_over_as_many_devices_as_divide_them(whole, rows, axes):
  found = by_file_rows(leaf(rows, 5), whole)
  assert (found and found.spec) == (axes and PartitionSpec(axes, None))


def test_rows_are_those_of_the_file(whole):
  turned = by_file_rows(leaf(3, 5, 16, path=("layers", "attn", "q", "kernel"), transposed=True), whole)
  assert turned.spec == PartitionSpec(None, None, ("data", "fsdp"))


def test_vectors_and_single_devices_stay_as_they_are(whole):
  assert by_file_rows(leaf(16), whole) is None
  assert by_file_rows(leaf(16, 5), SingleDeviceSharding(jax.devices()[0])) is None

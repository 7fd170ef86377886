import importlib.util

import pytest

from amopo_jax.plan.topology import Topology, abstract_devices, larger_topologies, parse_topology, use_tpu_compiler
from amopo_jax.types import InputError


@pytest.mark.parametrize(
  "text, topology, chips",
  [
    ("v5e:16x16", Topology(1, "v5e", (16, 16)), 256),
    ("2*v5p:4x4x4", Topology(2, "v5p", (4, 4, 4)), 128),
    ("h100:8", Topology(1, "h100", (8,)), 8),
  ],
)
def test_names_are_read_and_written(text, topology, chips):
  assert parse_topology(text) == topology
  assert topology.name == text
  assert topology.num_chips == chips
  assert topology.is_tpu == (not text.startswith("h100"))


@pytest.mark.parametrize(
  "text, message",
  [
    ("v9:2x2", r"unknown generation 'v9'; there are v5e, v5p, v6e .* and a100, h100, h200"),
    ("v5e:3x3", r"there is no such slice; of v5e there are 1x1, 2x2, 2x4, .*16x16$"),
    ("v5p:4x4", r"there is no such slice; of v5p there are 2x2x1, .*three multiples of 4"),
    ("0*v5e:2x2", "there is no such slice"),
    ("h100:2x4", r"of GPUs give the number alone, as h100:8"),
    ("2*h100:8", r"of GPUs give the number alone"),
    ("h100:0", r"of GPUs give the number alone"),
    ("v5e-16", r"no topology; give generation and chips, as v5e:16x16"),
    ("", r"no topology"),
  ],
)
def test_what_does_not_exist_is_one_line_that_says_what_does(text, message):
  with pytest.raises(InputError, match=message) as caught:
    parse_topology(text)
  assert str(caught.value).startswith(f"--topology={text}: ")
  assert "\n" not in str(caught.value)


def test_larger_slices_come_from_small_to_large():
  found = [topology.name for topology in larger_topologies(parse_topology("v5e:4x8"))]
  assert found == ["v5e:8x8", "v5e:8x16", "v5e:16x16"]
  assert larger_topologies(parse_topology("v6e:16x16")) == []


@pytest.mark.parametrize("name, devices, slices", [("v5e:1x1", 1, 1), ("v6e:2x4", 8, 1), ("2*v5e:2x2", 8, 2)])
def test_abstract_devices_are_as_many_as_the_chips(tpu_devices, name, devices, slices):
  tpu_devices("v5e:2x2")  # skips without the compiler
  found = abstract_devices(parse_topology(name))
  assert len(found) == devices
  assert len({getattr(device, "slice_index", 0) for device in found}) == slices


def test_a_missing_compiler_is_one_line_with_the_command(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match=r"needs the TPU's compiler.*: pip install 'libtpu==[\d.]+\*'$"):
    use_tpu_compiler()

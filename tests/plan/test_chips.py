import pytest

from amopo_jax.plan.chips import GPUS, SHAPES, TPUS, describe_slices, slice_exists


def test_every_generation_says_which_slices_it_has():
  assert set(SHAPES) == set(TPUS)
  for generation, shapes in SHAPES.items():
    for shape in shapes:
      assert slice_exists(generation, tuple(map(int, shape.split("x"))))
      assert shape in describe_slices(generation)


@pytest.mark.parametrize(
  "generation, shape, wanted",
  [
    ("v5e", (16, 16), True),
    ("v5e", (3, 3), False),
    ("v5e", (4, 2), False),  # the longer side comes last
    ("v5e", (2, 2, 1), False),
    ("v6e", (32, 16), False),
    ("v5p", (2, 2, 1), True),
    ("v5p", (8, 8, 12), True),
    ("v5p", (8, 4, 4), False),
    ("v5p", (4, 4, 6), False),
    ("v5p", (16, 24, 24), False),  # more than can be had at once
    ("v5p", (4, 4, 0), False),
  ],
)
def test_slices_are_those_of_the_documentation(generation, shape, wanted):
  assert slice_exists(generation, shape) == wanted


def test_peaks_are_plausible():
  for chip in (*TPUS.values(), *GPUS.values()):
    assert 1e14 < chip.flops < 1e16
    assert 1e9 <= chip.network_rate < chip.link_rate < chip.memory_rate < chip.flops
    assert 1e10 < chip.memory < 1e12

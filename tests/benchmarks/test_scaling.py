import math

import pytest

from benchmarks.scaling import slope


def test_slopes_of_powers():
  sizes = [1, 2, 4, 8]
  assert slope(sizes, [3 * size for size in sizes]) == pytest.approx(1)
  assert slope(sizes, [size**2 for size in sizes]) == pytest.approx(2)
  assert math.isnan(slope([1], [1]))

import pytest

from benchmarks.head import is_equal, measure


def test_both_heads_compute_the_same():
  one, other = (measure(head, 24, 64, width=16, chunk=7, steps=1) for head in ("moments", "full"))
  assert is_equal(one, other)
  assert one["value"] == pytest.approx(other["value"], rel=1e-5)
  assert not is_equal(one, other | {"d_weight": other["d_weight"] * 1.01})

import pytest

from benchmarks.ahead import Cost
from benchmarks.roofline import Chip, estimate

CHIP = Chip(flops=100.0, memory=10.0, links=1.0, size=1.0)


def test_the_longest_of_the_three_times_bounds_the_step():
  found = estimate(CHIP, Cost(flops=200.0, hbm_bytes=50.0, sent_bytes=1.0), 150.0, pairs=10)
  assert found["seconds"] == {"products": 2.0, "memory": 5.0, "links": 1.0}
  assert (found["bound"], found["least_seconds"], found["most_seconds"]) == ("memory", 5.0, 8.0)
  assert found["model_flops_utilization"] == pytest.approx([1.5 / 5, 1.5 / 8])
  assert found["pairs_per_second"] == pytest.approx([2.0, 1.25])

"""Intervals against values from tables, and their coverage by simulation."""

import math

import numpy as np
import pytest

from amopo_jax.lab.statistics import difference, interval


def test_interval_by_hand():
  found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
  assert found.mean == 3.0
  assert found.half == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)  # t of four degrees of freedom
  assert (found.low, found.high, found.count) == (found.mean - found.half, found.mean + found.half, 5)
  assert str(found) == "3.00 ± 1.96"


def test_one_value_says_nothing_of_its_noise():
  found = interval([2.5])
  assert found.mean == 2.5
  assert math.isnan(found.half)
  assert str(found) == "2.50"


def test_an_interval_holds_the_mean_nineteen_times_of_twenty():
  draws = np.random.default_rng(0).normal(1.0, 3.0, (4000, 5))
  held = [abs(found.mean - 1.0) <= found.half for found in map(interval, draws.tolist())]
  assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_differences_are_taken_seed_by_seed():
  ours, theirs = {0: 1.5, 1: 11.5, 2: 21.5, 7: 0.0}, {2: 21.0, 1: 11.0, 0: 1.0}
  found = difference(ours, theirs)
  assert found is not None
  assert (found.mean, found.half, found.count) == (0.5, 0.0, 3)
  assert difference({0: 1.0}, {1: 1.0}) is None

"""Fronts by hand, volumes by counting points of a fine grid."""

import itertools

import numpy as np
import pytest

from amopo_jax.lab.pareto import front, hypervolume


def test_front_by_hand():
  points = np.array([[4.0, 1.0], [3.0, 3.0], [1.0, 4.0], [2.0, 3.0], [3.0, 3.0], [0.0, 0.0]])
  assert front(points).tolist() == [True, True, True, False, True, False]


def test_volumes_by_hand():
  assert hypervolume(np.array([[2.0, 3.0]]), (0.0, 0.0)) == 6.0
  assert hypervolume(np.array([[2.0, 3.0], [3.0, 1.0]]), (0.0, 0.0)) == 7.0
  assert hypervolume(np.array([[2.0, 3.0], [3.0, 1.0]]), (1.0, 1.0)) == 2.0
  assert hypervolume(np.array([[1.0, 0.0]]), (0.0, 0.0)) == 0.0
  assert hypervolume(np.zeros((0, 3)), (0.0, 0.0, 0.0)) == 0.0


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_volumes_by_counting_cells(dimensions):
  side = 6
  points = np.random.default_rng(dimensions).integers(0, side + 1, (7, dimensions)).astype(np.float64)
  cells = itertools.product(range(side), repeat=dimensions)
  counted = sum(
    any(all(place < reach for place, reach in zip(cell, point, strict=True)) for point in points) for cell in cells
  )
  assert hypervolume(points, (0.0,) * dimensions) == counted


def test_what_is_dominated_adds_nothing():
  points = np.random.default_rng(1).random((12, 3))
  assert hypervolume(points, (0.0,) * 3) == pytest.approx(hypervolume(points[front(points)], (0.0,) * 3), rel=1e-12)

import itertools
from contextlib import contextmanager

import ml_dtypes
import numpy as np
import pytest

from amopo_jax.models import hf_parts
from amopo_jax.models.hf_names import Leaf
from amopo_jax.models.hf_parts import convert, read_parts

LAYERS, ROWS, COLUMNS = 3, 10, 6
TYPES = [np.float32, ml_dtypes.bfloat16, np.float16, np.float64]


def files_of(leaf, kind, times_read=None):
  """Tensors of the leaf as files have them, and a view of them that counts how often a row is read."""
  draw = np.random.default_rng(0)
  tensors = {name: draw.normal(size=leaf.file_shape).astype(kind) for name in leaf.names}

  class Tensor:
    def __init__(self, name):
      self.name = name

    def __getitem__(self, rows):
      if times_read is not None:
        times_read[self.name][rows] += 1
      return tensors[self.name][rows]

  @contextmanager
  def views():
    yield Tensor

  return tensors, views


def leaf_of(is_stacked, is_transposed):
  names = tuple(f"layer.{i}" for i in range(LAYERS)) if is_stacked else ("whole",)
  shape = (COLUMNS, ROWS) if is_transposed else (ROWS, COLUMNS)
  path = ("layers" if is_stacked else "embed", "kernel")
  return Leaf(path=path, shape=(LAYERS, *shape) if is_stacked else shape, names=names, is_transposed=is_transposed)


@pytest.fixture(params=[1, 7, 1000], ids="piece of {}".format)
def small_pieces(request, monkeypatch):
  monkeypatch.setattr(hf_parts, "_PIECE_BYTES", request.param * COLUMNS * 4 // 2)
  monkeypatch.setattr(hf_parts, "_STRIP_ROWS", 3)
  monkeypatch.setattr(hf_parts, "_TILE", 4)
  monkeypatch.setattr(hf_parts, "_PIECES_AT_ONCE", 2)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("is_stacked", [False, True])
@pytest.mark.parametrize(
  "kinds", itertools.product(TYPES, TYPES[:3]), ids=lambda kinds: "-".join(k.__name__ for k in kinds)
)
def test_parts_are_those_of_the_tensors(is_stacked, is_transposed, kinds, small_pieces):
  leaf, (there, wanted) = leaf_of(is_stacked, is_transposed), kinds
  tensors, views = files_of(leaf, there)
  whole = np.stack([tensors[name].T if is_transposed else tensors[name] for name in leaf.names])
  whole = (whole if is_stacked else whole[0]).astype(wanted)
  cuts = lambda size: [(0, size), (0, size // 2), (size // 2, size), (1, 2)]
  parts = list(itertools.product(*(cuts(size) for size in whole.shape)))
  found = read_parts(leaf, views, np.dtype(wanted), parts)
  for part, bounds in zip(found, parts, strict=True):
    np.testing.assert_array_equal(part, whole[tuple(slice(*pair) for pair in bounds)])
    assert part.dtype == wanted
    assert part.ctypes.data % 64 == 0


def test_rows_that_several_parts_want_are_read_once_and_others_never(small_pieces):
  leaf = leaf_of(is_stacked=True, is_transposed=False)
  times = {name: np.zeros(ROWS, int) for name in leaf.names}
  _, views = files_of(leaf, np.float32, times)
  read_parts(leaf, views, np.dtype(np.float32), [((0, 2), (2, 8), (0, 3)), ((1, 2), (2, 8), (3, 6))])
  np.testing.assert_array_equal([*times.values()], [[0, 0, *[1] * 6, 0, 0]] * 2 + [[0] * ROWS])


@pytest.mark.parametrize(
  "kinds", [(ml_dtypes.bfloat16,) * 2, (ml_dtypes.bfloat16, np.float32), (np.float32, np.float16)]
)
@pytest.mark.parametrize("orders", ["CF", "FC", "FF", "CC"])
@pytest.mark.parametrize("shape", [(257, 600), (256, 512), (1, 300), (300, 1)])
def test_matrices_are_turned_round_whole_whatever_their_size(shape, orders, kinds):
  draw = np.random.default_rng(0)
  source = np.asarray(draw.normal(size=shape).astype(kinds[0]), order=orders[0])
  target = np.zeros((shape[0] + 2, shape[1] + 3), kinds[1], order=orders[1])
  convert(target[1:-1, 2:-1], source)
  np.testing.assert_array_equal(target[1:-1, 2:-1], source.astype(kinds[1]))
  assert not target[0].any()
  assert not target[:, -1].any()

"""The formats of a quantized kernel, against oracles written from their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix

from amopo_jax.models.quantized import TYPES, abstract_quantized, dequantize, quantize, tile_size

LEVELS = (
  (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
  (-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
  (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
NF4 = np.concatenate([np.array(row, np.float64) for row in LEVELS])  # arXiv 2305.14314, appendix E


def kernel(*shape):
  return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def tiles(w, tile):
  """[layers tiles tile outputs] of a stacked kernel, in float64."""
  layers, inputs, outputs = w.shape
  return w.astype(np.float64).reshape(layers, inputs // tile, tile, outputs)


@pytest.mark.parametrize("inputs, tile", [(128, 64), (896, 64), (96, 32), (32, 32), (40, 8), (7, 1), (3584, 64)])
def test_a_tile_is_the_largest_power_of_two_that_divides_the_inputs(inputs, tile):
  assert tile_size(inputs) == tile


def test_nf4_takes_the_nearest_of_the_sixteen_values_times_the_largest_of_the_tile():
  w = kernel(2, 128, 24)
  cut = tiles(w, 64)
  largest = np.abs(cut).max(axis=2, keepdims=True)
  codes = np.abs((cut / largest)[..., None] - NF4).argmin(-1)
  made = quantize(jnp.asarray(w), "nf4")
  np.testing.assert_array_equal(made["scale"], largest[:, :, 0])
  assert np.mean(np.asarray(made["qvalue"]).astype(int) == codes.reshape(w.shape)) > 0.9999  # but for ties in float32
  expected = (NF4[codes] * largest).reshape(w.shape)
  off = np.abs(np.asarray(dequantize(**made)) - expected) / largest.max()
  assert np.mean(off < 1e-6) > 0.9999


def test_int8_rounds_to_255_steps_between_the_largest_of_the_tile_and_its_opposite():
  w = kernel(2, 96, 8)
  cut = tiles(w, 32)
  scale = np.abs(cut).max(axis=2, keepdims=True) / 127.5
  steps = (cut / scale).reshape(w.shape)
  made = quantize(jnp.asarray(w), "int8")
  np.testing.assert_allclose(made["scale"], scale[:, :, 0], rtol=1e-6)
  is_tie = np.abs(steps - np.floor(steps) - 0.5) < 1e-3  # as is the largest of every tile
  expected = np.clip(np.round(steps), -128, 127)
  np.testing.assert_array_equal(np.asarray(made["qvalue"])[~is_tie], expected[~is_tie])
  assert np.all(np.abs(made["qvalue"] - steps) < 0.501)
  np.testing.assert_allclose(dequantize(**made), w, atol=0.501 * scale.max())


@pytest.mark.parametrize("name", TYPES)
def test_dequantize_is_that_of_qwix_bit_for_bit(name):
  made = quantize(jnp.asarray(kernel(3, 64, 16)), name)
  theirs = qwix.dequantize(qwix.QArray(made["qvalue"], made["scale"], None, TYPES[name]))
  np.testing.assert_array_equal(dequantize(**made), theirs)


@pytest.mark.parametrize("name", TYPES)
def test_any_part_that_is_made_of_tiles_has_the_bits_of_the_whole(name):
  w = jnp.asarray(kernel(2, 192, 10))
  whole, part = quantize(w, name), quantize(w[1:, 64:128, 3:7], name)
  np.testing.assert_array_equal(part["qvalue"], whole["qvalue"][1:, 64:128, 3:7])
  np.testing.assert_array_equal(part["scale"], whole["scale"][1:, 1:2, 3:7])


@pytest.mark.parametrize("name", TYPES)
def test_a_tile_of_zeros_stays_zero_and_shapes_are_known_beforehand(name):
  w = jnp.zeros((2, 64, 4))
  made = quantize(w, name)
  np.testing.assert_array_equal(dequantize(**made), w)
  shape = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert shape(made) == shape(abstract_quantized(w.shape, name))

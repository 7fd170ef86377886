"""Oracle: the products of NumPy that the convolutions stand for, counted by hand."""

import pytest

from amopo_jax.plan.hlo import parse
from amopo_jax.plan.products import product_flops

PROGRAM = """
ENTRY %main (x: bf16[8,16]) -> bf16[8,32] {{
  %x = bf16[{left}]{{1,0:T(8,128)(2,1)}} parameter(0)
  %y = bf16[{right}]{{1,0:T(8,128)(2,1)S(1)}} parameter(1)
  ROOT %product = bf16[{result}]{{0,1}} {kind}(%x, %y), {attributes}, metadata={{op_name="a/dot_general"}}
}}
"""


@pytest.mark.parametrize(
  "left, right, result, kind, attributes, multiplications",
  [
    ("8,16", "16,32", "8,32", "convolution", "dim_labels=bf_io->bf", 8 * 16 * 32),
    ("16,8", "16,32", "8,32", "convolution", "dim_labels=fb_io->bf", 8 * 16 * 32),
    # Two sums at once, one of them as a window that meets every place.
    ("8,4,16", "4,16,32", "8,1,32", "convolution", "window={size=4}, dim_labels=b0f_0io->b0f", 8 * 4 * 16 * 32),
    # Four products side by side: each place of the window's holes meets its own.
    (
      "4,8,16",
      "4,16,32",
      "4,8,32",
      "convolution",
      "window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf",
      4 * 8 * 16 * 32,
    ),
    # One of four matrices per place of the result, by a window turned around.
    (
      "512,64,1",
      "4,64,128",
      "512,4,128",
      "convolution",
      "window={size=4 pad=3_3 rhs_reversal=1}, dim_labels=bf0_0io->b0f",
      512 * 64 * 4 * 128,
    ),
    ("8,16", "16,32", "8,32", "dot", "lhs_contracting_dims={1}, rhs_contracting_dims={0}", 8 * 16 * 32),
    (
      "4,8,16",
      "4,16,32",
      "4,8,32",
      "dot",
      "lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}",
      4 * 8 * 16 * 32,
    ),
    ("8,16", "8,16", "8,16", "add", "kind=kLoop", 0),
  ],
)
def test_two_operations_for_each_multiplication(left, right, result, kind, attributes, multiplications):
  text = PROGRAM.format(left=left, right=right, result=result, kind=kind, attributes=attributes)
  [computation] = parse(text).values()
  assert product_flops(computation["product"], computation) == 2 * multiplications

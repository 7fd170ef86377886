"""The real train step, parameters and rows split over four chips, by the TPU's compiler: kernels in, no S × S."""

import pytest

from benchmarks.ahead import compile_step

LENGTH, PAIRS = 4096, 8


@pytest.mark.parametrize("remat, kernels", [("save_attention", 3), pytest.param("full", 4, marks=pytest.mark.slow)])
def test_the_train_step_compiles_for_the_tpu_with_the_kernels_and_without_a_square(
  make_spec, tpu_devices, remat, kernels
):
  spec = make_spec(
    model__compute_dtype="bfloat16",
    model__remat=remat,
    mesh__fsdp=2,
    mesh__tensor=2,
    batch__rows=2,
    batch__row_length=LENGTH,
  )
  compiled = compile_step(spec, tpu_devices("v5e:2x2"), num_contexts=2, pairs=PAIRS)
  # The scan over layers holds one forward and two backward kernels; without the kept output a second forward one.
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == kernels
  square = LENGTH**2 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < square / 2

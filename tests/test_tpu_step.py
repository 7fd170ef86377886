"""The real train step, parameters and rows split over four chips, by the TPU's compiler: kernels in, no S × S."""

import pytest

from amopo_jax.plan.ahead import try_step
from amopo_jax.plan.case import check_cases
from amopo_jax.plan.topology import parse_topology

LENGTH = 4096


@pytest.mark.parametrize("remat, kernels", [("save_attention", 3), pytest.param("full", 4, marks=pytest.mark.slow)])
def test_the_train_step_compiles_for_the_tpu_with_the_kernels_and_without_a_square(
  make_spec, tpu_devices, remat, kernels
):
  tpu_devices("v5e:2x2")  # skips without the compiler
  spec = make_spec(
    model__compute_dtype="bfloat16",
    model__remat=remat,
    mesh__fsdp=2,
    mesh__tensor=2,
    batch__rows=2,
    batch__group_rows=2,
    batch__row_length=LENGTH,
    batch__max_pairs=8,
  )
  [case] = check_cases(spec, [parse_topology("v5e:2x2")], 0)
  attempt = try_step(case.parts, case.num_contexts)
  # The scan over layers holds one forward and two backward kernels; without the kept output a second forward one.
  assert attempt.executable.as_text().count('custom_call_target="tpu_custom_call"') == kernels
  square = LENGTH**2 * 4
  assert attempt.memory.temporaries < square / 2

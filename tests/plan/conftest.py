"""What the tests of the plan share: a tiny run on abstract TPUs."""

import pytest

from amopo_jax.plan.case import check_cases
from amopo_jax.plan.topology import parse_topology

SMALL = {
  "model__compute_dtype": "bfloat16",
  "model__attention": "xla",  # the kernels take seconds to compile, and are tested elsewhere
  "batch__rows": 8,
  "batch__group_rows": 2,
  "batch__row_length": 128,
  "batch__max_pairs": 16,
}


@pytest.fixture
def case(make_spec, tpu_devices):
  """Makes the case of a tiny run on a topology; overrides as `make_spec`. Skips without the TPU's compiler."""
  tpu_devices("v5e:2x2")

  def make(topology="v5e:2x2", rows_per_chip=0, **overrides):
    [found] = check_cases(make_spec(**(SMALL | overrides)), [parse_topology(topology)], rows_per_chip)
    return found

  return make

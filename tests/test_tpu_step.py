"""The real train step, parameters and rows split over four chips, by the TPU's compiler: kernels in, no S × S."""

import math
import re

import jax
import numpy as np
import pytest

from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.transformer import abstract_params
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


@pytest.mark.slow
def test_rows_longer_than_a_chip_s_part_compile_with_the_kernels_and_whole_states_for_the_head_alone(
  make_spec, tpu_devices
):
  spec = make_spec(
    model__compute_dtype="bfloat16",
    model__remat="save_attention",
    mesh__fsdp=1,
    mesh__context=4,
    batch__rows=2,
    batch__row_length=LENGTH,
  )
  compiled = compile_step(spec, tpu_devices("v5e:2x2"), num_contexts=2, pairs=PAIRS)
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 3
  assert compiled.memory_analysis().temp_size_in_bytes < LENGTH**2 * 4 / 2
  states = [size for kind, size, _ in collectives(compiled.as_text(), 4) if size >= 2 * LENGTH * 32 * 2]
  assert len(states) <= 2  # to the head, and their gradient back


@pytest.mark.slow
def test_between_slices_nothing_travels_but_sums(make_spec, tpu_devices):
  """Chips 0 to 3 of the mesh are a slice, 4 to 7 the other one."""
  spec = make_spec(
    model__compute_dtype="bfloat16", mesh__data=2, mesh__fsdp=4, mesh__slices=2, batch__row_length=LENGTH
  )
  compiled = compile_step(spec, tpu_devices("v5e:2x2", num_slices=2), num_contexts=2, pairs=PAIRS)
  found = collectives(compiled.as_text(), 8)
  crossing = [(kind, size) for kind, size, groups in found if any(len({d // 4 for d in group}) > 1 for group in groups)]
  assert {kind for kind, _ in crossing} <= {"all-reduce", "reduce-scatter"}
  params = abstract_params(from_hf(spec.model.arch, "arch"), "float32")
  gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
  assert 0.2 * gradients < sum(size for _, size in crossing) < 1.2 * gradients


@pytest.mark.slow
def test_moments_lie_on_the_hosts(make_spec, tpu_devices):
  figures = {}
  for offload in (False, True):
    spec = make_spec(model__compute_dtype="bfloat16", mesh__fsdp=4, optim__offload=offload, batch__row_length=LENGTH)
    compiled = compile_step(spec, tpu_devices("v5e:2x2"), num_contexts=2, pairs=PAIRS)
    figures[offload] = compiled.memory_analysis()
  params = abstract_params(from_hf(spec.model.arch, "arch"), "float32")
  moments = 2 * 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
  near, far = figures[False], figures[True]
  assert near.host_argument_size_in_bytes == 0
  assert far.host_argument_size_in_bytes >= moments / 4
  assert far.host_alias_size_in_bytes == far.host_argument_size_in_bytes  # updated in place
  assert near.argument_size_in_bytes - far.argument_size_in_bytes >= 0.9 * moments / 4


def collectives(text: str, num_devices: int) -> list[tuple[str, int, list[list[int]]]]:
  """Kind, bytes of the largest result, and groups of devices of each collective of a program."""
  kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
  found = []
  for line in text.splitlines():
    match = re.search(rf"= (.*?) ({kinds})(?:-start)?\(", line)
    if match:
      shapes = re.findall(r"\b[a-z]+(\d+)\[([\d,]*)\]", match[1])
      sizes = [int(bits) // 8 * math.prod(int(n) for n in axes.split(",") if n) for bits, axes in shapes]
      found.append((match[2], max(sizes), groups_of(line, num_devices)))
  return found


def groups_of(line: str, num_devices: int) -> list[list[int]]:
  """The devices that meet in a collective, in either of XLA's two spellings."""
  if listed := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", line):
    return [list(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", listed[1])]
  if counted := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
    shape, axes = (tuple(map(int, numbers.split(","))) for numbers in counted.groups()[:2])
    order = tuple(map(int, counted[3].split(","))) if counted[3] else range(len(axes))
    return np.arange(num_devices).reshape(axes).transpose(order).reshape(shape).tolist()
  return [list(range(num_devices))]

"""The real train step, parameters and rows split over four chips, by the TPU's compiler: kernels in, no S × S."""

import math
import re

import jax
import pytest

from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.transformer import abstract_params
from amopo_jax.plan.ahead import try_step
from amopo_jax.plan.case import check_cases
from amopo_jax.plan.topology import parse_topology

LENGTH = 4096


@pytest.mark.parametrize(
  "topology, head_dim, remat, kernels",
  [
    ("v5e:2x2", 32, "save_attention", 3),
    pytest.param("v5e:2x2", 32, "full", 4, marks=pytest.mark.slow),
    pytest.param("v5p:2x2x1", 128, "save_attention", 3, marks=pytest.mark.slow),
    pytest.param("v6e:2x2", 128, "save_attention", 3, marks=pytest.mark.slow),
  ],
)
def test_the_train_step_compiles_for_the_tpu_with_the_kernels_and_without_a_square(
  make_spec, tpu_devices, topology, head_dim, remat, kernels
):
  tpu_devices(topology)  # skips without the compiler
  spec = make_spec(
    model__compute_dtype="bfloat16",
    model__remat=remat,
    model__arch__head_dim=head_dim,
    mesh__fsdp=2,
    mesh__tensor=2,
    batch__rows=2,
    batch__group_rows=2,
    batch__row_length=LENGTH,
    batch__max_pairs=8,
  )
  compiled = compiled_for(spec, topology)
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
  compiled = compiled_for(spec, "v5e:2x2")
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 3
  assert compiled.memory_analysis().temp_size_in_bytes < LENGTH**2 * 4 / 2
  states = [size for size in collectives(compiled.as_text()) if size >= 2 * LENGTH * 32 * 2]
  assert len(states) <= 2  # to the head, and their gradient back


@pytest.mark.slow
def test_between_slices_nothing_travels_but_sums(make_spec, tpu_devices):
  """The compiler makes transfers by the hosts of what passes the data centre's network."""
  spec = make_spec(
    model__compute_dtype="bfloat16",
    mesh__data=2,
    mesh__fsdp=4,
    mesh__slices=2,
    batch__row_length=LENGTH,
    batch__max_pairs=8,  # the sums of thousands of responses would be more than the gradients of so small a model
  )
  compiled = compiled_for(spec, "2*v5e:2x2")
  sent = {"ALL_REDUCE": 0, "ALL_GATHER": 0}
  for result, kind in re.findall(r'= (\(.*?\)) send\(.*_xla_megascale_transfer_type="(\w+)"', compiled.as_text()):
    sent[kind] += max(sizes_of(result))
  params = abstract_params(from_hf(spec.model.arch, "arch"), "float32")
  of_a_chip = sum(leaf.size for leaf in jax.tree.leaves(params)) // 4
  # Two or four bytes each; those of a layer stand there once, those of the tied table for both of its uses.
  assert of_a_chip < sent["ALL_REDUCE"] < 8 * of_a_chip
  assert sent["ALL_GATHER"] < 1024  # the compiler's own


@pytest.mark.slow
def test_moments_lie_on_the_hosts(make_spec, tpu_devices):
  figures = {}
  for offload in (False, True):
    spec = make_spec(model__compute_dtype="bfloat16", mesh__fsdp=4, optim__offload=offload, batch__row_length=LENGTH)
    compiled = compiled_for(spec, "v5e:2x2")
    figures[offload] = compiled.memory_analysis()
  params = abstract_params(from_hf(spec.model.arch, "arch"), "float32")
  moments = 2 * 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
  near, far = figures[False], figures[True]
  assert near.host_argument_size_in_bytes == 0
  assert far.host_argument_size_in_bytes >= moments / 4
  assert far.host_alias_size_in_bytes == far.host_argument_size_in_bytes  # updated in place
  assert near.argument_size_in_bytes - far.argument_size_in_bytes >= 0.9 * moments / 4


def compiled_for(spec, topology):
  """The step of a config for a topology, as `amopo plan` compiles it."""
  [case] = check_cases(spec, [parse_topology(topology)], 0)
  return try_step(case.parts, case.num_contexts).executable


def collectives(text: str) -> list[int]:
  """Bytes of the largest result of each collective of a program."""
  kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
  return [max(sizes_of(result)) for result in re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", text)]


def sizes_of(result: str) -> list[int]:
  """Bytes of each array of a result."""
  shapes = re.findall(r"\b[a-z]+(\d+)\[([\d,]*)\]", result)
  return [int(bits) // 8 * math.prod(int(n) for n in axes.split(",") if n) for bits, axes in shapes]

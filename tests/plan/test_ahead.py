import jax
import jax.numpy as jnp
import pytest

from amopo_jax import build_data
from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.mesh import place_batch
from amopo_jax.plan.ahead import _shortage, abstract_batch, bytes_per_chip, try_step
from amopo_jax.prepare import prepare, train_stream
from amopo_jax.types import RunFailure

EARLY = (
  "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (70.33G) exceeds "
  "available HBM (15.75G)."
)
LATE = (
  "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.44G of 15.75G "
  "hbm. Exceeded hbm capacity by 4.70G.\n\nTotal hbm usage >= 20.70G:"
)


@pytest.mark.parametrize("message, needed", [(EARLY, 70.33), (LATE, 20.44)])
def test_a_refusal_says_how_much_is_needed_and_how_much_there_is(message, needed):
  assert _shortage(message) == (round(needed * 2**30), round(15.75 * 2**30))


def test_another_refusal_is_passed_on_in_one_line():
  with pytest.raises(RunFailure, match=r"the TPU's compiler refused the step: INTERNAL: Mosaic failed$"):
    _shortage("INTERNAL: Mosaic failed\nat line 1")


def test_the_batch_is_the_one_that_a_run_puts_onto_its_devices(make_spec):
  spec = make_spec(batch__accumulation=2, mesh__tensor=2)
  run = prepare(spec, None)
  owned = range(build_data.num_streams(spec.batch))
  groups = next(train_stream(spec, run.data, num_workers=0, owned=owned))
  real = place_batch(collate(groups, accumulation=2, num_pairs=count_pairs(groups)), run.mesh)
  describe = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype), leaf.sharding), tree)
  assert describe(abstract_batch(spec, run.mesh, 2)) == describe(real)


def test_bytes_are_those_of_one_chip(make_spec):
  run = prepare(make_spec(), None)
  held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(run.init().params))
  assert bytes_per_chip(run.target.params) == held


def test_four_bits_are_half_a_byte_and_the_hosts_memory_is_not_the_chip_s(make_spec):
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  codes = jax.ShapeDtypeStruct((6, 4), jnp.uint4, sharding=place)
  assert bytes_per_chip({"codes": codes}) == 12
  away = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=place.with_memory_kind("pinned_host"))
  assert bytes_per_chip([away, codes, jax.ShapeDtypeStruct((3,), jnp.bfloat16, sharding=place)]) == 12 + 6


def test_a_step_that_fits_says_what_it_needs(case):
  found = case()
  attempt = try_step(found.parts, found.num_contexts)
  memory = attempt.memory
  assert attempt.fits
  assert memory.optimizer > memory.parameters > 0  # two moments, and counters
  assert memory.base == 0
  assert memory.parameters + memory.optimizer + memory.batch <= memory.arguments
  assert memory.arguments + memory.temporaries <= memory.needed < 2**30
  rows, layers = found.spec.batch.rows // found.topology.num_chips, found.config.num_layers
  one = rows * found.spec.batch.row_length * found.config.width * 2  # a layer's input, in bfloat16
  assert layers * one <= memory.activations < memory.temporaries
  assert 0 < memory.gradients < memory.parameters * 2


def test_adapters_leave_a_frozen_base(case):
  found = case(lora__rank=4, lora__base_dtype="bfloat16")
  memory = try_step(found.parts, found.num_contexts).memory
  assert memory.parameters < memory.base
  assert memory.optimizer < 3 * memory.parameters


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_an_answer(case):
  found = case(
    batch__rows=4096, batch__row_length=8192, batch__max_pairs=0, model__remat="none", model__attention="xla"
  )
  attempt = try_step(found.parts, found.num_contexts)
  assert not attempt.fits
  assert attempt.memory.available == round(15.75 * 2**30)
  assert attempt.memory.needed > attempt.memory.available

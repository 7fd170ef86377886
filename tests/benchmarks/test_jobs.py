from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.policy import find_policy
from amopo_jax.step import draw_noise
from benchmarks.batches import Lengths
from benchmarks.jobs import write_job
from benchmarks.shapes import SHAPES

LENGTHS = [Lengths(40, 7, 5), Lengths(33, 4, 9)]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
  folder = tmp_path_factory.mktemp("job")
  return write_job(folder, SHAPES["tiny"], LENGTHS, place="before", contexts=(3, 9), options={"x": 1})


def test_every_pair_has_its_lengths(job):
  pairs = job.pairs
  assert pairs.shape == (2, 2, 2)
  assert [[len(response) for response in two] for two in pairs.responses] == [[7, 5], [4, 9]]
  assert [[len(prompt) for prompt in prompts] for prompts in pairs.prompts] == [[43, 49], [36, 42]]
  assert (job.dtype, job.options) == ("float32", {"x": 1})


def test_the_noise_is_that_of_a_run(job):
  rng = jax.random.key_data(jax.random.key(0, impl="threefry2x32"))
  expected = [draw_noise(rng, jnp.asarray(step), (1, 2, 2, 2))[0] for step in (0, 1)]
  np.testing.assert_allclose(job.pairs.noise, np.stack(expected), rtol=1e-6)


def test_the_weights_can_be_read_and_are_the_same_again(job, tmp_path):
  again = write_job(tmp_path, SHAPES["tiny"], LENGTHS, contexts=(3, 9), options={})
  read = lambda folder: (Path(folder) / "model.safetensors").read_bytes()
  assert find_policy(job.model, {}).config.num_layers == 2
  assert read(job.model) == read(again.model)

"""All contenders that run in this environment compute one loss and one gradient."""

import numpy as np
import pytest

from benchmarks.batches import Lengths
from benchmarks.peers import ours, torch_clean, torch_released
from benchmarks.peers.serve import triangle

CONTENDERS = {
  "shared": (ours, {"shared": True}),
  "unshared": (ours, {"shared": False}),
  "shared, rows of 128": (ours, {"shared": True, "row_length": 128}),
  "unshared, rows of 128": (ours, {"shared": False, "row_length": 128}),
  "released": (torch_released, {}),
  "packed": (torch_clean, {"packed": True}),
  "single": (torch_clean, {"packed": False}),
}


def open_trainer(name, job):
  module, options = CONTENDERS[name]
  return module.open_trainer(job._replace(options=options))


@pytest.fixture(scope="module")
def expected(job):
  trainer = open_trainer("single", job)
  return [trainer.step() for _ in range(2)]


@pytest.mark.parametrize("name", CONTENDERS)
def test_losses_before_and_after_an_update_are_those_of_one_graph_per_sequence(name, job, expected):
  trainer = open_trainer(name, job)
  for step, tolerance in zip(expected, (2e-6, 1e-5), strict=True):
    np.testing.assert_allclose(trainer.step().loss, step.loss, rtol=tolerance)
  assert expected[0].loss - expected[1].loss > 1e-2  # else an update that does nothing would pass


@pytest.mark.parametrize("name", ["shared", "released", "packed"])
def test_a_single_pair_tells_its_mean_log_probabilities(name, make_job):
  job = make_job(Lengths(20, 6, 8), place="before")
  told = open_trainer(name, job).step().mean_logps
  np.testing.assert_allclose(told, open_trainer("single", job).step().mean_logps, rtol=1e-5)
  assert len(told) == 4


def test_counts_of_the_layouts(job):
  lengths = [len(prompt) + len(response) for prompt, response in job.pairs.sequences]
  scored = sum(len(response) for _, response in job.pairs.sequences)
  counts = {name: open_trainer(name, job).counts for name in CONTENDERS}
  for name in ("packed", "single"):
    assert counts[name][:3] == (sum(lengths), scored, sum(map(triangle, lengths)))
  padded = [max(lengths[:4])] * 4 + [max(lengths[4:])] * 4
  assert counts["released"][:3] == (sum(padded), sum(padded), sum(map(triangle, padded)))
  assert counts["unshared"].attended == counts["single"].attended
  assert counts["shared"].attended < counts["single"].attended
  assert counts["unshared, rows of 128"].tokens == 4 * 128
  assert counts["shared, rows of 128"].tokens == 2 * 128 < sum(lengths)
  assert counts["shared"].head_tokens == scored


def test_an_override_keeps_the_type_of_its_key(job):
  spec = ours.make_spec(job._replace(options={"overrides": ["model.remat=none", "model.head_chunk=64"]}))
  assert (spec.model.remat, spec.model.head_chunk) == ("none", 64)

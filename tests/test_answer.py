"""A batch of prompts on a mesh: what ends a response, what is refused, and that devices do not wait for each other."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax import answer as module
from amopo_jax import build_data
from amopo_jax.answer import make_answer
from amopo_jax.build import build_mesh, param_shardings
from amopo_jax.load import load_policy
from amopo_jax.models.sampling import GREEDY
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import find_policy
from amopo_jax.types import RunFailure

PROMPTS = [np.asarray(ids, np.int32) for ids in ([5, 7, 11, 13], [29], [31, 37])]
NEW = 6


@pytest.fixture
def answer_of(trained, make_spec):
  """Builds the answer of the trained policy, its parameters changed, on a mesh."""

  def build(path=None, change=lambda x: x, **axes):
    spec = make_spec(model__path=str(path or trained[0]), model__arch={}, data__tokenizer="", **axes)
    source, mesh = find_policy(spec.model.path, {}), build_mesh(spec)
    shardings = param_shardings(spec, abstract_params(source.config, jnp.float32), mesh)
    params = jax.tree.map(change, load_policy(source, dtype=jnp.float32, shardings=shardings))
    tokenizer = build_data.build_tokenizer(spec.data, source)
    return make_answer(spec, source, params, tokenizer, mesh, NEW, GREEDY, 0)

  return build


def test_it_stops_where_the_model_s_config_says_too(answer_of, trained, tmp_path):
  first = int(answer_of()(PROMPTS, [0, 1, 2], 8).tokens[0, 0])
  shutil.copytree(trained[0], tmp_path / "run")
  config = tmp_path / "run" / "model" / "config.json"
  told = json.loads(config.read_text())
  config.write_text(json.dumps(told | {"eos_token_id": [told["eos_token_id"], first]}))
  found = answer_of(tmp_path / "run")(PROMPTS, [0, 1, 2], 8)
  assert found.length[0] == 1
  assert found.has_ended[0]


def test_a_short_batch_is_filled_with_its_own_prompts(answer_of):
  found = answer_of()(PROMPTS, [0, 1, 2], 8)
  np.testing.assert_array_equal(found.tokens, np.resize(found.tokens[:3], (8, NEW)))


def test_a_policy_that_is_not_finite_is_refused(answer_of):
  with pytest.raises(RunFailure, match="log-probabilities are not finite"):
    answer_of(change=lambda x: x * jnp.nan)(PROMPTS, [0, 1, 2], 8)


@pytest.mark.parametrize(("axes", "are_tied"), [({"mesh__data": 8, "mesh__fsdp": 1}, False), ({"mesh__fsdp": 8}, True)])
def test_devices_that_hold_all_parameters_do_not_wait_for_each_other(answer_of, monkeypatch, axes, are_tied):
  compiled, jit_for = [], module.meshes.jit_for

  def kept(*given, **named):
    run = jit_for(*given, **named)
    return lambda *args: [compiled.append(run.lower(*args).compile().as_text()), run(*args)][1]

  monkeypatch.setattr(module.meshes, "jit_for", kept)
  answer_of(**axes)(PROMPTS, [0, 1, 2], 8)
  loops = [part for part in compiled[0].split("\n\n") if "while/body" in part and not part.startswith("ENTRY")]
  assert loops
  assert any("all-reduce" in part or "all-gather" in part for part in loops) == are_tied

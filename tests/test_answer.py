"""A batch of prompts on a mesh: what ends a response, what is refused, and that devices do not wait for each other."""

import json
import re
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
from amopo_jax.models.generate import padded_length
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
    return make_answer(spec, source, params, tokenizer, mesh, max_new=NEW, sampling=GREEDY, seed=0)

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


@pytest.fixture
def program(answer_of, monkeypatch):
  """The compiled program of an answer on a mesh."""

  def compiled(**axes):
    found, jit_for = [], module.meshes.jit_for

    def kept(*given, **named):
      run = jit_for(*given, **named)
      return lambda *args: [found.append(run.lower(*args).compile().as_text()), run(*args)][1]

    with monkeypatch.context() as patch:
      patch.setattr(module.meshes, "jit_for", kept)
      answer_of(**axes)(PROMPTS, [0, 1, 2], 8)
    return found[0]

  return compiled


COLLECTIVES = ("all-reduce", "all-gather", "collective-permute", "all-to-all", "reduce-scatter")


def test_devices_that_hold_all_parameters_do_not_wait_for_each_other(program):
  alone = program(mesh__data=8, mesh__fsdp=1)  # not even at the end: a CPU's collectives give up after a minute
  assert not any(name in alone for name in COLLECTIVES)
  for axes in (
    {"mesh__fsdp": 8},
    {"mesh__data": 8, "mesh__fsdp": 1, "mesh__rules": (("embed/weight", (None, "data")),)},
  ):
    assert any(name in program(**axes) for name in COLLECTIVES)


def test_what_is_split_over_tensor_stays_there(program, trained):
  vocabulary = find_policy(str(trained[0]), {}).config.vocab_size
  text = program(mesh__data=1, mesh__fsdp=4, mesh__tensor=2)
  assert "all-reduce" in text
  assert not re.search(r"= f32\[\d+,\d+,\d+\]\S* collective-permute", text)  # heads
  assert not re.search(rf"= f32\[\d+,{vocabulary}\]\S* all-gather", text)  # logits
  assert not re.search(rf"= f32\[[\d,]+,{padded_length(1) + NEW}\]\S* all-gather", text)  # values of narrow heads

"""Greedy tokens against transformers, on random tiny models of every architecture; prompts of several lengths."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.attention.fused import fused_attention
from amopo_jax.models.attention.xla_blocks import xla_blocks
from amopo_jax.models.generate import _rooms, make_generate_fn, padded_length
from amopo_jax.models.hf_import import load_config, load_params
from amopo_jax.models.sampling import GREEDY, Sampling
from tests.models.test_hf_parity import CASES, make_torch

torch = pytest.importorskip("torch")

PROMPTS = [[5, 7, 11, 13, 17, 19, 23], [29], [31, 37, 41], [43, 47, 53, 59, 3, 2, 4, 8, 9]]
NEW = 14
END = 2


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
  model = make_torch(request.param)
  directory = tmp_path_factory.mktemp(request.param)
  model.save_pretrained(directory)
  return model, directory


def batch(prompts=PROMPTS, extra=0):
  length = max(map(len, prompts)) + extra
  padding = np.asarray([length - len(prompt) for prompt in prompts], np.int32)
  tokens = np.zeros((len(prompts), length), np.int32)
  for row, prompt in enumerate(prompts):
    tokens[row, padding[row] :] = prompt
  return jnp.asarray(tokens), jnp.asarray(padding)


def make(config, *, ends=(END,), sampling=GREEDY, new=NEW, **others):
  settings = {"compute_dtype": jnp.float32, "attention_chunk": 4} | others
  return jax.jit(make_generate_fn(config, max_new=new, end_tokens=ends, sampling=sampling, **settings))


def keys(seed=0):
  return jax.vmap(lambda n: jax.random.fold_in(jax.random.key(seed), n))(jnp.arange(len(PROMPTS)))


def oracle(model, prompt, ends=(END,), new=NEW):
  """Greedy tokens and their log-probability, the whole sequence anew for every token."""
  tokens, logp = list(prompt), 0.0
  with torch.no_grad():
    for _ in range(new):
      logps = torch.log_softmax(model(torch.tensor([tokens])).logits[0, -1].double(), dim=-1)
      tokens.append(int(logps.argmax()))
      logp += float(logps[tokens[-1]])
      if tokens[-1] in ends:
        break
  return tokens[len(prompt) :], logp


@pytest.mark.parametrize(("extra", "least_room"), [(0, NEW), (5, 3)])
def test_greedy_tokens_are_those_of_transformers(saved, extra, least_room, monkeypatch):
  monkeypatch.setattr("amopo_jax.models.generate._LEAST_ROOM", least_room)
  model, directory = saved
  config, _ = load_config(directory)
  params = load_params(directory, config, dtype=np.float32)
  found = make(config)(params, *batch(extra=extra), keys())
  for row, prompt in enumerate(PROMPTS):
    expected, logp = oracle(model, prompt)
    length = int(found.length[row])
    assert np.asarray(found.tokens[row, :length]).tolist() == expected
    assert bool(found.has_ended[row]) == (expected[-1] == END)
    assert float(found.sum_logp[row]) == pytest.approx(logp, rel=1e-4)


@pytest.mark.parametrize(
  ("max_new", "rooms"), [(1, [1]), (63, [63]), (64, [32, 64]), (130, [33, 65, 130]), (256, [32, 64, 128, 256])]
)
def test_the_cache_doubles_up_to_the_longest_response(max_new, rooms):
  assert _rooms(max_new) == rooms


@pytest.mark.parametrize("longest, length", [(1, 64), (64, 64), (65, 96), (97, 128), (129, 192), (193, 256)])
def test_prompts_are_padded_to_few_lengths(longest, length):
  assert padded_length(longest) == length


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  model = make_torch("qwen2_tied")
  directory = tmp_path_factory.mktemp("one")
  model.save_pretrained(directory)
  config, _ = load_config(directory)
  return model, config, load_params(directory, config, dtype=np.float32)


def test_it_stops_at_any_of_the_ends_and_repeats_the_last_token_behind_it(one):
  model, config, params = one
  first, _ = oracle(model, PROMPTS[0], ends=())
  end = first[3]
  found = make(config, ends=(end,))(params, *batch(), keys())
  length = int(found.length[0])
  assert length == first.index(end) + 1
  assert bool(found.has_ended[0])
  assert set(np.asarray(found.tokens[0, length - 1 :]).tolist()) <= {end, 0}


def test_the_attention_that_trains_reads_prompts_too(one):
  _, config, params = one
  attend = partial(fused_attention, xla_blocks())
  plain, blocks = (make(config, **by)(params, *batch(), keys()) for by in ({}, {"attend": attend}))
  np.testing.assert_array_equal(plain.tokens, blocks.tokens)


def test_a_response_does_not_depend_on_its_neighbours(one):
  _, config, params = one
  warm = make(config, sampling=Sampling(1.0, 20, 0.9))
  tokens, padding = batch()
  whole = warm(params, tokens, padding, keys())
  part = warm(params, tokens[1:3], padding[1:3], keys()[1:3])
  length = int(jnp.min(part.length))
  np.testing.assert_array_equal(whole.tokens[1:3, :length], part.tokens[:, :length])
  other = warm(params, tokens, padding, keys(seed=1))
  assert not np.array_equal(whole.tokens, other.tokens)


def test_bfloat16_is_taken_as_it_is(one):
  _, config, params = one
  small = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  found = make(config, compute_dtype=jnp.bfloat16)(small, *batch(), keys())
  assert np.isfinite(np.asarray(found.sum_logp)).all()


def test_what_all_tokens_share_is_not_in_the_loop_over_tokens(one):
  _, config, params = one
  text = str(jax.make_jaxpr(make(config))(params, *batch(), keys()))
  _, loop = text.split("while[", maxsplit=1)
  of_layer = f"f32[1,{config.width},{config.mlp_width}]"
  assert of_layer in loop
  assert not re.search(rf"{re.escape(of_layer)} = slice|= cos ", loop)

import dataclasses

import numpy as np

from amopo_jax.data.layout import Layout
from amopo_jax.data.sample import read_leaf, show_sample
from amopo_jax.data.trie import lay_out


def test_every_context_is_shown_with_its_scored_tokens_marked(dataset, tokenizer, contexts):
  pair = dataset.pair(2)
  shown = show_sample(dataset[2], tokenizer, contexts.names, most=10_000)
  for name in contexts.names:
    assert f"--- {name}, chosen: " in shown
  assert shown.count(f"<|im_start|>assistant\n⟦{pair.chosen.content}<|im_end|>⟧") == 3
  assert shown.count(f"⟦{pair.rejected.content}<|im_end|>⟧") == 3
  assert "Focus on truth" in shown
  assert "train.jsonl:3" in shown


def test_counts_are_those_of_the_tokens(dataset, tokenizer, contexts):
  encoded = dataset[2]
  shown = show_sample(encoded, tokenizer, contexts.names)
  rejected = len(encoded.responses[1])
  assert f"--- truth, rejected: {len(encoded.prompts[2]) + rejected} tokens, {rejected} scored" in shown


def test_what_is_not_laid_out_is_not_shown(dataset, tokenizer, contexts):
  shown = show_sample(dataset.laying_out(Layout(rejected="none"))[5], tokenizer, contexts.names)
  assert "--- truth, chosen: " in shown
  assert "rejected" not in shown


def test_a_context_that_is_not_laid_out_is_said_to_be(dataset, tokenizer, contexts):
  encoded = dataset[5]
  laid_out = np.asarray([[False, False], [False, True], [True, True]])
  shown = show_sample(dataclasses.replace(encoded, laid_out=laid_out), tokenizer, contexts.names)
  first, second, third = contexts.names
  assert f"--- {first}: not laid out" in shown
  assert f"--- {second}, chosen" not in shown
  assert shown.split(f"--- {second}, rejected: ")[1].count("<|im_start|>") > 1
  assert f"--- {third}, chosen: " in shown


def test_long_text_loses_its_middle(dataset, tokenizer, contexts):
  longest = max(range(23), key=lambda index: len(dataset.pair(index).prompt[0].content))
  shown = show_sample(dataset[longest], tokenizer, contexts.names, most=40)
  assert "characters…]" in shown
  assert "assistant\n⟦" in shown
  assert max(map(len, shown.split("\n"))) < 150


def test_read_leaf_follows_the_parents(dataset):
  encoded = dataset[5]
  segment = lay_out(encoded, encoded.leaves, 0)
  tokens, scored = read_leaf(segment, 3)
  np.testing.assert_array_equal(tokens, [*encoded.prompts[1], *encoded.responses[1]])
  np.testing.assert_array_equal(np.flatnonzero(scored), np.arange(len(encoded.prompts[1]), len(tokens)))

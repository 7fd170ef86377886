import re

import pytest

from amopo_jax.announce import announce
from amopo_jax.policy import count_parameters
from amopo_jax.prepare import prepare


@pytest.fixture
def said(make_spec, console):
  def say(**overrides):
    run = prepare(make_spec(**overrides), None)
    announce(run, console)
    return run, console.file.getvalue()

  return say


def test_it_says_where_with_what_and_on_which_pairs(said):
  run, text = said(train__steps=7, batch__accumulation=1)
  assert "on 8 cpu device(s), mesh data 1 × fsdp 8 × tensor 1" in text
  assert f"Qwen2ForCausalLM, {count_parameters(run.source.config) / 1e6:.1f} M parameters in float32" in text
  assert f"{len(run.data.train[0])} training pairs, {len(run.data.heldout[0])} held out; 7 steps of 8 rows" in text
  assert "the mean (not the sum) of token log-probabilities" in text


def test_it_counts_cut_dropped_tied_and_inverted_pairs(said):
  run, text = said()
  found = run.data.surveys["world"]
  assert f"data world: {found.num_pairs} pairs of {found.num_records} records; 0 cut, 0 dropped" in text
  tied, inverted = found.num_tied, found.num_inverted
  assert f"tied / inverted: helpfulness {tied[0]} / {inverted[0]}, correctness {tied[1]} / {inverted[1]}" in text
  assert sum(tied) > 0
  assert "data heldout world:" in text


def test_it_shows_one_sample_per_context_with_the_scored_tokens_marked(said):
  _, text = said()
  assert text.count("⟦") == text.count("⟧") >= 4
  for name in ("helpfulness", "correctness"):
    assert re.search(rf"focus on {name} score \d", text)


def test_it_names_the_reasons_for_skipped_records(said, world, tmp_path):
  broken = tmp_path / "broken.jsonl"
  broken.write_text((world / "train.jsonl").read_text() + '{"prompt": "?", "responses": []}\n')
  source = {"path": str(broken), "format": "native", "weight": 1.0}
  _, text = said(data__train={"broken": source}, data__on_error="skip")
  assert "1 skipped" in text
  assert re.search(r"skipped in broken: .*broken\.jsonl:\d+: 0 response\(s\)", text)

import dataclasses
import json
import re

import numpy as np
import pytest

from amopo_jax.announce import announce, warn_of_skips
from amopo_jax.data.skips import SkipReason
from amopo_jax.data.survey import Survey
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
  assert "on 8 cpu device(s), mesh data 1 × fsdp 8 × context 1 × tensor 1" in text
  assert f"Qwen2ForCausalLM, {count_parameters(run.source.config) / 1e6:.1f} M parameters in float32" in text
  assert "from random weights; attention xla_blocks\n" in text
  assert f"{len(run.data.train[0])} training pairs, {len(run.data.heldout[0])} held out; 7 steps of 8 rows" in text
  assert "the mean (not the sum) of token log-probabilities" in text
  assert "WARNING" not in text


def test_sequences_that_may_be_longer_than_the_model_was_made_for_are_pointed_out(said):
  _, text = said(batch__row_length=2048)
  assert "WARNING: config.data.max_length: up to 2048 tokens, but the model was made for 1024 positions\n" in text


def test_it_says_what_is_split_beyond_the_axes(said):
  _, text = said(mesh__data=2, mesh__context=2, mesh__slices=2, optim__offload=True)
  assert "mesh data 2 × fsdp 2 × context 2 × tensor 1 in 2 slices, optimizer state in the memory of the hosts" in text


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
  assert re.search(r"1 × such as .*broken\.jsonl:49: 0 response\(s\)", text)


def test_pairs_that_are_skipped_because_no_prompt_fits_cannot_be_missed(said, world, tmp_path):
  """Most of a file: questions whose instruction alone is longer than max_length, and a broken line at its end."""
  path = tmp_path / "long.jsonl"
  good = (world / "train.jsonl").read_text().splitlines()[:3]
  system = {"role": "system", "content": "please " * 200}
  bad = [json.loads(line) for line in good * 3]
  bad = [row | {"prompt": [system, *row["prompt"]]} for row in bad]
  path.write_text("\n".join([*good, *map(json.dumps, bad), "{broken"]) + "\n")
  source = {"path": str(path), "format": "native", "weight": 1.0}
  _, text = said(data__train={"long": source}, data__on_error="skip")
  warning = text[text.index("WARNING") :].splitlines()
  assert warning[0] == ("WARNING: data long: 10 of 13 records (77%) are skipped, as config.data.on_error=skip says:")
  assert warning[1].startswith(f"  9 × such as {path}:4: prompt longer than the row: ")
  assert warning[2].startswith(f"  1 × such as {path}:13: broken JSON")


def test_more_reasons_than_one_can_read_are_added_up():
  reasons = tuple(SkipReason(9 - number, f"f:{number}: [reason] {number}") for number in range(7))
  found = Survey(90, 42, reasons, 0, 48, 0, 0, (0,), (0,), np.zeros((48, 2), np.int32), 0)
  lines = warn_of_skips("d", found)
  assert lines[1:3] == ["  9 × such as f:0: [reason] 0", "  8 × such as f:1: [reason] 1"]
  assert lines[-1] == "  7 × for 2 other reasons"
  assert warn_of_skips("d", dataclasses.replace(found, num_skipped=0, skip_reasons=())) == []

import json
import sys

import pytest

from benchmarks import input as input_benchmark


@pytest.fixture
def run(world, tmp_path, monkeypatch, capsys):
  def go(*extra):
    out = tmp_path / "input.json"
    data = ["--data", str(world / "train.jsonl"), "--tokenizer", str(world / "tokenizer"), "--high=4"]
    size = ["--max-length=128", "--row-length=256", "--rows=2", "--max-pairs=16"]
    monkeypatch.setattr(sys, "argv", ["input", *data, *size, "--json", str(out), *extra])
    input_benchmark.main()
    return json.loads(out.read_text()), capsys.readouterr().out

  return go


def test_it_counts_what_sharing_spares(run):
  found, said = run()
  assert found["pairs"] == 48
  assert found["tokens_scored"] < found["tokens_trie"] < found["tokens_unshared"] <= found["tokens_padded"]
  assert 0 <= found["padding"] < 1
  assert found["most_pairs_in_a_group"] <= 16
  assert "pairs_per_group" in said


def test_the_question_is_shared_more_where_the_instruction_comes_after_it(run):
  before, after = run()[0], run("--place=after")[0]
  assert after["tokens_trie"] < before["tokens_trie"]
  assert after["tokens_unshared"] == pytest.approx(before["tokens_unshared"], rel=0.1)

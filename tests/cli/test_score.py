import json

import pytest

from amopo_jax.export import export


@pytest.fixture
def scored(amopo, world, tmp_path):
  """Runs `amopo score` on the first two held-out records and returns its lines."""

  def run(model, *arguments):
    data, out = tmp_path / "two.jsonl", tmp_path / "scores.jsonl"
    data.write_text("".join((world / "heldout.jsonl").read_text().splitlines(keepends=True)[:2]))
    status, text, err = amopo("score", f"--model={model}", f"--data={data}", f"--out={out}", *arguments)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert "2 pairs of 2 records; 0 cut" in text
    assert text.endswith(f"{out}: {len(lines)} lines\n")
    return lines

  return run


def test_a_workdir_brings_contexts_tokenizer_and_beta(scored, trained):
  lines = scored(trained[0])
  assert [line["context"] for line in lines[:4]] == ["helpfulness"] * 2 + ["correctness"] * 2
  assert lines[0]["reward"] == pytest.approx(0.8 * lines[0]["sum_logp"] / lines[0]["length"])


def test_a_model_alone_is_asked_the_bare_question(scored, trained, tmp_path):
  export(str(trained[0]), str(tmp_path / "model"))
  lines = scored(tmp_path / "model")
  assert {line["context"] for line in lines} == {"plain"}
  assert len(lines) == 4


def test_a_config_overrides_the_workdir_s(scored, trained, config_file):
  path = config_file(objective__beta=1.6)
  whole, doubled = scored(trained[0]), scored(trained[0], f"--config={path}")
  assert [line["reward"] for line in doubled] == pytest.approx([2 * line["reward"] for line in whole], rel=1e-5)


def test_skipped_records_are_a_warning(amopo, trained, config_file, world, tmp_path):
  data, out = tmp_path / "some.jsonl", tmp_path / "scores.jsonl"
  data.write_text((world / "heldout.jsonl").read_text() + '{"prompt": "?", "responses": []}\n' * 3)
  config = config_file(data__on_error="skip")
  status, text, err = amopo("score", f"--model={trained[0]}", f"--data={data}", f"--out={out}", f"--config={config}")
  assert status == 0
  assert "8 pairs of 11 records; 0 cut, 0 dropped, 3 skipped" in text
  assert "WARNING: data data: 3 of 11 records (27%) are skipped" in err
  assert f"3 × such as {data}:9: 0 response(s)" in err


def test_a_mistake_is_one_line(amopo, trained, tmp_path):
  status, _, err = amopo("score", f"--model={trained[0]}", "--data=no/such.jsonl", f"--out={tmp_path}/x.jsonl")
  assert status == 2
  assert err.startswith("amopo score: no/such.jsonl: no such file")
  assert err.count("\n") == 1

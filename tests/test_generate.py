"""The tool around the loop: lines, contexts, batches, and going on after an interruption."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from amopo_jax import generate as module
from amopo_jax.export import export
from amopo_jax.generate import Request, generate
from amopo_jax.models.sampling import Sampling
from amopo_jax.train import train
from amopo_jax.types import InputError, RunFailure

NEW = 12


@pytest.fixture(scope="module")
def spec(trained, make_spec):
  return make_spec(model__path=str(trained[0]), model__arch={}, data__tokenizer="")


@pytest.fixture(scope="module")
def prompts(world, tmp_path_factory):
  path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
  rows = [json.loads(line) for line in (world / "heldout.jsonl").read_text().splitlines()[:5]]
  path.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
  return path


@pytest.fixture
def made(spec, prompts, tmp_path):
  """Generates into a file, and gives its lines."""

  def run(name="out.jsonl", **changes):
    request = Request(str(prompts), max_new=NEW, **{"batch_size": 8, **changes})
    count = generate(spec, request, str(tmp_path / name))
    lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    assert len(lines) == count
    return lines

  return run


def responses(lines):
  return {(line["record"], line["context"], line["sample"]): line["response"] for line in lines}


def test_there_is_a_line_per_record_context_and_sample(made, spec, prompts):
  lines = made(num_samples=2, sampling=Sampling(1.0))
  names = list(spec.data.contexts)
  assert [(x["record"], x["context"], x["sample"]) for x in lines] == [
    (record, context, sample) for record in range(5) for context in names for sample in range(2)
  ]
  assert {line["score"] for line in lines} == {4.0}
  assert lines[0]["origin"] == f"{prompts}:1"
  assert lines[0]["prompt"] == json.loads(prompts.read_text().splitlines()[0])["prompt"]
  for line in lines:
    assert 1 <= line["num_tokens"] <= NEW
    assert line["has_ended"] or line["num_tokens"] == NEW
    assert "<|im_end|>" not in line["response"]
    assert line["sum_logp"] < 0


def test_responses_do_not_depend_on_the_batches(made):
  sampling = Sampling(1.0, top_k=20)
  assert responses(made("a", sampling=sampling)) == responses(made("b", sampling=sampling, batch_size=16))


def test_contexts_and_scores_can_be_chosen(made):
  lines = made(contexts=("correctness",), score=1.0)
  assert {(line["context"], line["score"]) for line in lines} == {("correctness", 1.0)}


def test_it_goes_on_after_an_interruption_and_repeats_nothing(made, spec, prompts, tmp_path, monkeypatch):
  whole = made("whole", num_samples=2, sampling=Sampling(1.0))
  write, written, load = module.Parts.write, [], module.load_policy

  def counted(self, number, lines):
    written.append(number)
    write(self, number, lines)

  def interrupted(self, number, lines):
    if number == 1:
      raise KeyboardInterrupt
    counted(self, number, lines)

  monkeypatch.setattr(module.Parts, "write", interrupted)
  with pytest.raises(KeyboardInterrupt):
    made("out", num_samples=2, sampling=Sampling(1.0))
  assert written == [0]
  assert not (tmp_path / "out").exists()
  other = Request(str(prompts), max_new=NEW, batch_size=8, num_samples=2, sampling=Sampling(0.5))
  with pytest.raises(InputError, match=r"out\.partial: holds batches of another request"):
    generate(spec, other, str(tmp_path / "out"))
  monkeypatch.setattr(
    module, "load_policy", lambda *given, **named: jax.tree.map(lambda x: 2 * x, load(*given, **named))
  )
  with pytest.raises(InputError, match=r"out\.partial: holds batches of another request"):
    generate(spec, other._replace(sampling=Sampling(1.0)), str(tmp_path / "out"))
  monkeypatch.setattr(module, "load_policy", load)
  asked_otherwise = dataclasses.replace(spec, data=dataclasses.replace(spec.data, place="after"))
  with pytest.raises(InputError, match=r"out\.partial: holds batches of another request"):
    generate(asked_otherwise, other._replace(sampling=Sampling(1.0)), str(tmp_path / "out"))
  monkeypatch.setattr(module.Parts, "write", counted)
  assert made("out", num_samples=2, sampling=Sampling(1.0)) == whole
  assert written == [0, 1, 2]
  assert not (tmp_path / "out.partial").exists()


def test_a_short_batch_is_filled_with_its_own_prompts(made, monkeypatch):
  found, line = [], module._line
  monkeypatch.setattr(module, "_line", lambda *given: [found.append(given[-2]), line(*given)][1])
  count = len(made(batch_size=64))
  assert count < len(found[0].length) == 64
  np.testing.assert_array_equal(found[0].length, np.resize(found[0].length[:count], 64))
  np.testing.assert_allclose(found[0].sum_logp, np.resize(found[0].sum_logp[:count], 64), rtol=1e-4)


@pytest.mark.parametrize(
  "axes",
  [{"mesh__data": 4, "mesh__fsdp": 2}, {"mesh__fsdp": 4, "mesh__tensor": 2}, {"mesh__data": 8, "mesh__fsdp": 1}],
  ids=str,
)
def test_every_mesh_gives_the_same_responses(made, make_spec, trained, prompts, tmp_path, axes):
  whole = made("whole")
  other = make_spec(model__path=str(trained[0]), model__arch={}, data__tokenizer="", **axes)
  request = Request(str(prompts), max_new=NEW, batch_size=8)
  generate(other, request, str(tmp_path / "other.jsonl"))
  split = [json.loads(line) for line in (tmp_path / "other.jsonl").read_text().splitlines()]
  assert responses(split) == responses(whole)
  np.testing.assert_allclose([x["sum_logp"] for x in split], [x["sum_logp"] for x in whole], rtol=1e-4)


def test_the_rows_of_a_config_s_steps_do_not_matter(make_spec, trained, prompts, tmp_path):
  spec = make_spec(
    model__path=str(trained[0]), model__arch={}, data__tokenizer="", batch__rows=3, batch__group_rows=1
  )  # which do not divide over eight devices
  assert generate(spec, Request(str(prompts), max_new=2), str(tmp_path / "out.jsonl")) == 5 * len(spec.data.contexts)


def test_a_run_of_adapters_answers_as_its_merged_export_does(make_spec, prompts, tmp_path):
  spec = make_spec(lora__rank=4, lora__alpha=16.0, train__steps=2, optim__learning_rate=0.05)
  train(spec, str(tmp_path / "run"), Console(quiet=True))
  export(str(tmp_path / "run"), str(tmp_path / "model"))
  found = {}
  for name in ("run", "model"):
    tokenizer = "" if name == "run" else spec.data.tokenizer
    policy = make_spec(model__path=str(tmp_path / name), model__arch={}, data__tokenizer=tokenizer)
    generate(policy, Request(str(prompts), max_new=NEW), str(tmp_path / f"{name}.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    found[name] = {key: (line["response"], line["sum_logp"]) for key, line in zip(responses(lines), lines, strict=True)}
  assert {key: text for key, (text, _) in found["run"].items()} == {
    key: text for key, (text, _) in found["model"].items()
  }
  sums = [[logp for _, logp in of.values()] for of in found.values()]
  np.testing.assert_allclose(*sums, rtol=1e-4)


def test_it_tells_of_responses_beyond_the_model_s_positions(spec, trained, prompts, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(trained[0], workdir)
  told = json.loads((workdir / "model" / "config.json").read_text())
  changed, lines = dataclasses.replace(spec, model=dataclasses.replace(spec.model, path=str(workdir))), []
  for positions in (told["max_position_embeddings"], 4):
    (workdir / "model" / "config.json").write_text(json.dumps(told | {"max_position_embeddings": positions}))
    generate(changed, Request(str(prompts), max_new=2), str(tmp_path / f"{positions}.jsonl"), tell=lines.append)
  assert lines == ["10 of 10 responses", "10 of 10 responses; WARNING: 10 are beyond the model's 4 positions"]


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"max_new": 0}, "--max_new: 0 is not at least 1"),
    ({"sampling": Sampling(-1.0)}, "--temperature: -1 is neither 0"),
    ({"sampling": Sampling(1.0, top_k=-1)}, "--top_k: -1 is negative"),
    ({"sampling": Sampling(1.0, top_p=0.0)}, r"--top_p: 0 is not in \(0, 1\]"),
    ({"num_samples": 2}, "--num_samples: at temperature 0 all samples are the same"),
    ({"contexts": ("honesty",)}, "--contexts: 'honesty' is unknown"),
    ({"score": 9.0}, "--score: 9 is outside 0 to 4, the range of helpfulness"),
    ({"data": "no/such.jsonl"}, "no/such.jsonl: no such file"),
  ],
)
def test_what_cannot_be_asked_is_refused(spec, prompts, tmp_path, changes, message):
  request = Request(**{"data": str(prompts), **changes})
  with pytest.raises(InputError, match=message):
    generate(spec, request, str(tmp_path / "out.jsonl"))


def test_tokens_are_not_split(make_spec, trained, prompts, tmp_path):
  spec = make_spec(model__path=str(trained[0]), model__arch={}, data__tokenizer="", mesh__context=2)
  with pytest.raises(InputError, match=r"config\.mesh\.context: one new token at a time cannot be split"):
    generate(spec, Request(str(prompts)), str(tmp_path / "out.jsonl"))


def test_a_bucket_needs_no_folder(spec, prompts, bucket):
  generate(spec, Request(str(prompts), max_new=2), "gs://bucket/new/responses.jsonl")
  assert bucket.exists("gs://bucket/new/responses.jsonl")
  assert not bucket.exists("gs://bucket/new/responses.jsonl.partial")


def test_a_result_is_never_overwritten(spec, prompts, tmp_path):
  (tmp_path / "out.jsonl").touch()
  with pytest.raises(InputError, match=r"out\.jsonl: exists; delete it"):
    generate(spec, Request(str(prompts)), str(tmp_path / "out.jsonl"))
  with pytest.raises(InputError, match=r"the folder .* does not exist"):
    generate(spec, Request(str(prompts)), str(tmp_path / "no" / "out.jsonl"))


def test_a_disk_that_refuses_is_a_line(spec, prompts, tmp_path, monkeypatch):
  def refuse(self, text):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(module.epath.Path("x").__class__, "write_text", refuse)
  with pytest.raises(RunFailure, match="cannot be written"):
    generate(spec, Request(str(prompts)), str(tmp_path / "out.jsonl"))

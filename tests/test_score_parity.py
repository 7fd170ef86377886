"""`score` on models that transformers saved, against torch: the same text, template, tokens and log-probabilities."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from amopo_jax.data.sources import open_source
from amopo_jax.run_codec import to_dict
from amopo_jax.run_spec import ContextEntry, SourceSpec
from amopo_jax.score import score
from tests.xla import flags

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
  "vocab_size": 1024,
  "hidden_size": 32,
  "intermediate_size": 64,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 512,
}
LLAMA3 = {
  "rope_type": "llama3",
  "rope_theta": 10000.0,
  "factor": 4.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 64,
}
MODELS = {
  "qwen2-tied": lambda: transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
  "qwen2-untied": lambda: transformers.Qwen2Config(**SIZES, tie_word_embeddings=False),
  "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=8),
  "llama3": lambda: transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3),
  "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=None),
}


@pytest.fixture
def model_dir(request, tmp_path, fixtures):
  """A random model and the fixture tokenizer in one directory, as transformers writes them."""
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(MODELS[request.param]())
  for parameter in model.parameters():  # the default 0.02 leaves every distribution nearly uniform
    torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else torch.nn.init.normal_(parameter, 1.0, 0.3)
  model.tie_weights()
  model.save_pretrained(tmp_path / "model")
  transformers.PreTrainedTokenizerFast.from_pretrained(fixtures / "tokenizer").save_pretrained(tmp_path / "model")
  return tmp_path / "model"


@pytest.mark.parametrize("model_dir", MODELS, indirect=True)
def test_score_agrees_with_torch(model_dir, make_spec, fixtures, tmp_path):
  records = fixtures / "records" / "native.jsonl"
  score(spec_for(make_spec(), model_dir, records), str(tmp_path / "scores.jsonl"))
  lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
  source = open_source(records, format="native")
  model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
  tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model_dir)
  assert len(lines) > 8
  for line in lines:
    logps = torch_logps(model, tokenizer, source[line["record"]], line)
    p = np.exp(logps)
    assert line["length"] == len(logps)
    np.testing.assert_allclose(line["sum_logp"] / line["length"], logps.mean(), rtol=1e-4)
    np.testing.assert_allclose(line["mean_p"], p.mean(), atol=1e-5)
    np.testing.assert_allclose(line["std_p"], p.std(ddof=1), atol=1e-5)


@pytest.mark.parametrize("model_dir", ["qwen2-tied"], indirect=True)
def test_eight_virtual_devices_on_two_threads_do_not_wait_forever(model_dir, make_spec, fixtures, tmp_path):
  spec = spec_for(make_spec(), model_dir, fixtures / "records" / "native.jsonl")
  program = (
    "import json, sys\n"
    "from amopo_jax.run_codec import from_dict; from amopo_jax.score import score\n"
    "print(score(from_dict(json.loads(sys.argv[1])), sys.argv[2]).num_lines)"
  )
  done = subprocess.run(
    [sys.executable, "-c", program, json.dumps(to_dict(spec)), str(tmp_path / "scores.jsonl")],
    env=os.environ | {"XLA_FLAGS": flags(8), "NPROC": "2"},
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) > 8


def spec_for(spec, model_dir, records):
  """A run that asks the bare question of one file."""
  data = dataclasses.replace(
    spec.data,
    train={"records": SourceSpec(str(records), "native", 1.0)},
    heldout={},
    heldout_fraction=0.0,
    tokenizer="",
    contexts={"plain": ContextEntry("", "plain", 0.0, 0.0)},
    rule="annotated",
    on_error="raise",
  )
  batch = dataclasses.replace(spec.batch, rows=8, group_rows=8, row_length=256)
  model = dataclasses.replace(spec.model, path=str(model_dir), arch={})
  return dataclasses.replace(spec, data=data, batch=batch, model=model)


def torch_logps(model, tokenizer, record, line):
  """Log-probabilities of the response's tokens, end of turn included, from the chat template's own full rendering."""
  messages = [{"role": message.role, "content": message.content} for message in record.prompt]
  prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
  prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
  answer_ids = tokenizer.encode(record.responses[line["index"]].content + "<|im_end|>", add_special_tokens=False)
  with torch.no_grad():
    logits = model(torch.tensor([prompt_ids + answer_ids])).logits[0].double()
  logps = torch.log_softmax(logits[len(prompt_ids) - 1 : -1], -1)
  return logps[torch.arange(len(answer_ids)), torch.tensor(answer_ids)].numpy()

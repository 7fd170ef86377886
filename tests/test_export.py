import json
import shutil

import jax
import numpy as np
import pytest

from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.export import export
from amopo_jax.load import load_policy
from amopo_jax.models.hf_import import load_config, load_params
from amopo_jax.policy import find_policy
from amopo_jax.types import InputError


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
  out = tmp_path_factory.mktemp("export") / "model"
  return out, export(str(trained[0]), str(out))


def test_it_holds_the_parameters_of_the_newest_checkpoint(exported, trained):
  out, found = exported
  config, _ = load_config(out)
  source = find_policy(str(trained[0]), {})
  assert (config, found.step) == (source.config, source.step)
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params = load_params(out, config, dtype=np.float32)
  ours = load_policy(source, dtype=np.float32, shardings=jax.tree.map(lambda _: here, params))
  jax.tree.map(np.testing.assert_array_equal, params, ours)


def test_it_brings_the_tokenizer_and_where_to_stop(exported, world):
  out, _ = exported
  tokenizer = load_tokenizer(out)
  assert tokenizer.fingerprint == load_tokenizer(world / "tokenizer").fingerprint
  stop = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
  assert not exported[1].has_standard_tokenizer  # a Qwen2 model with a word-level tokenizer
  assert stop == tokenizer.end[-1] == json.loads((out / "config.json").read_text())["eos_token_id"]


def test_transformers_loads_it_and_computes_the_same(exported, trained):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  model = transformers.AutoModelForCausalLM.from_pretrained(exported[0])
  source = find_policy(str(trained[0]), {})
  tokens = torch.arange(1, 9)[None]
  with torch.no_grad():
    logits = model(tokens).logits[0].numpy()
  assert logits.shape == (8, source.config.vocab_size)
  assert np.isfinite(logits).all()


def test_a_folder_in_use_is_refused_before_anything_is_read(exported, trained, monkeypatch):
  monkeypatch.setattr("amopo_jax.export.load_policy", None)
  with pytest.raises(InputError, match="not an empty directory"):
    export(str(trained[0]), str(exported[0]))


def test_a_folder_in_use_and_something_that_is_no_run_are_refused(exported, trained, tmp_path):
  with pytest.raises(InputError, match="not an empty directory"):
    export(str(trained[0]), str(exported[0]))
  with pytest.raises(InputError, match="not a workdir"):
    export(str(tmp_path), str(tmp_path / "out"))


def test_several_runs_are_averaged(exported, trained, tmp_path):
  twin = tmp_path / "twin"
  shutil.copytree(trained[0], twin)
  export(f"{trained[0]},{twin}", str(tmp_path / "soup"), weights=(1.0, 3.0))
  config, _ = load_config(exported[0])
  ours, one = (load_params(folder, config, dtype=np.float32) for folder in (tmp_path / "soup", exported[0]))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), ours, one)
  with pytest.raises(InputError, match="--weights: 3 for 2 runs"):
    export(f"{trained[0]},{twin}", str(tmp_path / "other"), weights=(1.0, 1.0, 1.0))

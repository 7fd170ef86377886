"""The directory for peft, of a run of one step; tests/models/test_peft_export.py has what peft makes of it."""

import json

import numpy as np
import pytest
from rich.console import Console
from safetensors import SafetensorError
from safetensors.numpy import load_file

from amopo_jax.export_adapters import export_adapters
from amopo_jax.train import train
from amopo_jax.types import InputError


@pytest.fixture(scope="module")
def workdir(make_spec, tmp_path_factory):
  path = tmp_path_factory.mktemp("adapters") / "run"
  train(make_spec(lora__rank=2, lora__alpha=3.0, train__steps=1), str(path), Console(quiet=True))
  return path


def test_it_names_rank_and_alpha_and_holds_two_matrices_of_each_kernel(workdir, tmp_path):
  assert export_adapters(str(workdir), str(tmp_path / "out")) == 1
  config = json.loads((tmp_path / "out/adapter_config.json").read_text())
  assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 3.0)
  tensors = load_file(tmp_path / "out/adapter_model.safetensors")
  kernels = {name.rsplit(".lora_", 1)[0] for name in tensors}
  assert len(tensors) == 2 * len(kernels) == 2 * 2 * 7  # two layers, seven kernels in each
  for kernel in kernels:
    assert tensors[f"{kernel}.lora_A.weight"].shape[0] == tensors[f"{kernel}.lora_B.weight"].shape[1] == 2
  assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in tensors.values())


def test_it_can_be_written_in_bfloat16(workdir, tmp_path):
  export_adapters(str(workdir), str(tmp_path / "out"), dtype="bfloat16")
  header = (tmp_path / "out/adapter_model.safetensors").read_bytes()
  assert b'"BF16"' in header
  assert b'"F32"' not in header


def test_what_has_no_adapters_is_refused(workdir, trained, tmp_path):
  with pytest.raises(InputError, match="trained the whole model, and has no adapters"):
    export_adapters(str(trained[0]), str(tmp_path / "out"))
  with pytest.raises(InputError, match="not a workdir"):
    export_adapters(str(tmp_path), str(tmp_path / "out"))
  (tmp_path / "used").mkdir()
  (tmp_path / "used/file").touch()
  with pytest.raises(InputError, match="not an empty directory"):
    export_adapters(str(workdir), str(tmp_path / "used"))


def test_a_disk_that_fills_leaves_nothing_and_is_a_line(workdir, tmp_path, monkeypatch):
  def fill(folder, *arguments, **keywords):
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    raise SafetensorError("No space left on device")

  monkeypatch.setattr("amopo_jax.export_adapters.write_adapters", fill)
  with pytest.raises(InputError, match=r"out: cannot be written \(No space left on device\)"):
    export_adapters(str(workdir), str(tmp_path / "out"))
  assert list(tmp_path.iterdir()) == []

"""`amopo export`: a checkpoint as a directory that transformers and vLLM load."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import SingleDeviceSharding

from amopo_jax import build
from amopo_jax.data.tokenizer import is_read_alike, load_tokenizer
from amopo_jax.models.hf_export import check_out_dir, save_model
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import find_policy, is_workdir, load_policy, read_run
from amopo_jax.types import InputError


class Exported(NamedTuple):
  """What an export wrote.

  Attributes:
    step: of the checkpoint.
    has_standard_tokenizer: False where AutoTokenizer would take the tokenizer class of the model's family instead;
      such a directory's tokenizer is to be loaded with `PreTrainedTokenizerFast`.
  """

  step: int
  has_standard_tokenizer: bool


def export(workdir: str, out: str, *, step: int | None = None, dtype: str = "") -> Exported:
  """Writes config.json, safetensors and the tokenizer of a run's policy.

  Args:
    workdir: of the run.
    out: directory that does not exist yet, or is empty.
    step: checkpoint; None: the newest.
    dtype: of the files: float32 or bfloat16; "": as it was trained.

  Returns:
    What was exported, and whether transformers' AutoTokenizer reads its tokenizer.json as it is.

  Raises:
    InputError: no such run or step, or `out` is in use.
  """
  if not is_workdir(workdir):
    raise InputError(f"{workdir}: not a workdir; give the --workdir of a training run")
  check_out_dir(out)
  spec = read_run(workdir).spec
  source = find_policy(workdir, {}, step=step)
  trained = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  written = build.dtype("--dtype", dtype) if dtype else trained
  here = SingleDeviceSharding(jax.local_devices()[0])
  shardings = jax.tree.map(lambda _: here, abstract_params(source.config, trained))
  params = load_policy(source, dtype=trained, shardings=shardings)
  tokenizer = load_tokenizer(source.tokenizer)

  def add_files(folder: Path) -> None:
    tokenizer.save(folder)
    generation = {"eos_token_id": int(tokenizer.end[-1])}  # where the policy was trained to stop
    (folder / "generation_config.json").write_text(json.dumps(generation) + "\n")

  save_model(params, source.config, source.hf_config, out, dtype=written, add_files=add_files)
  return Exported(int(source.step or 0), "://" in out or is_read_alike(out))

"""`amopo export`: a checkpoint as a directory that transformers and vLLM load."""

import json
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
from etils import epath
from jax.sharding import SingleDeviceSharding

from amopo_jax import build, processes
from amopo_jax.build_step import storing_mesh
from amopo_jax.data.tokenizer import is_read_alike, load_tokenizer
from amopo_jax.load import load_policy
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_export import Crew, check_out_dir, save_model
from amopo_jax.models.quantized import TYPES
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import find_policy, is_workdir, read_run
from amopo_jax.remote import local_folder, write_folder
from amopo_jax.run_spec import RunSpec
from amopo_jax.soup import check_alike, mix, soup_shares
from amopo_jax.types import InputError, Params


class Exported(NamedTuple):
  """What an export wrote.

  Attributes:
    step: of the checkpoint.
    has_standard_tokenizer: False where AutoTokenizer would take the tokenizer class of the model's family instead;
      such a directory's tokenizer is to be loaded with `PreTrainedTokenizerFast`.
  """

  step: int
  has_standard_tokenizer: bool


def export(
  workdir: str, out: str, *, step: int | None = None, dtype: str = "", weights: Sequence[float] = ()
) -> Exported:
  """Writes config.json, safetensors and the tokenizer of a run's policy.

  Several processes hold the parameters together and write the files in turn; one alone holds them on its host.

  Args:
    workdir: of the run; of several, with commas, the weighted mean of their parameters (`amopo_jax.soup`).
    out: directory, local or gs://, that does not exist yet, or is empty.
    step: checkpoint; None: the newest.
    dtype: of the files: float32 or bfloat16; "": as it was trained.
    weights: of several runs, one non-negative number each, up to a common factor; empty: all alike.

  Returns:
    What was exported, and whether transformers' AutoTokenizer reads its tokenizer.json as it is.

  Raises:
    InputError: no such run or step, or `out` is in use; runs whose models or tokenizers differ.
  """
  names = workdir.split(",")
  for name in names:
    if not is_workdir(name):
      raise InputError(f"{name}: not a workdir; give the --workdir of a training run")
  shares = soup_shares(weights, len(names))
  if jax.process_index() == 0:
    check_out_dir(out)
  spec = read_run(names[0]).spec
  sources = [find_policy(name, {}, step=step) for name in names]
  source, tokenizer = sources[0], load_tokenizer(sources[0].tokenizer)
  check_alike(sources, tokenizer)
  trained = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  written = build.dtype("--dtype", dtype) if dtype else trained
  placed = _shardings(spec, source.config, abstract_params(source.config, trained))
  params = mix(partial(load_policy, dtype=trained, shardings=placed), sources, shares)

  def add_files(folder: epath.Path) -> None:
    write_folder(str(folder), tokenizer.save)
    generation = {"eos_token_id": int(tokenizer.end[-1])}  # where the policy was trained to stop
    (folder / "generation_config.json").write_text(json.dumps(generation) + "\n")

  crew = Crew(jax.process_index(), jax.process_count(), processes.meet)
  save_model(params, source.config, source.hf_config, out, dtype=written, add_files=add_files, crew=crew)
  is_first = jax.process_index() == 0  # the disk of another may not show the folder yet
  is_alike = processes.from_first(is_read_alike(local_folder(out)) if is_first else None)
  return Exported(int(source.step or 0), is_alike)


def _shardings(spec: RunSpec, config: ModelConfig, params: Params) -> Params:
  """In the memory of one process's host; over the devices of several, by the rules of training.

  A base that is quantized is so on the devices of training: another kind rounds some of its codes otherwise.
  """
  if processes.is_several() or spec.lora.base_dtype in TYPES:
    return build.param_shardings(spec, params, storing_mesh(spec, config))
  here = SingleDeviceSharding(_host())
  return jax.tree.map(lambda _: here, params)


def _host() -> jax.Device:
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS names an accelerator alone
    return jax.local_devices()[0]

"""Where a policy comes from: a Hugging Face directory or hub name, the workdir of a run, or random weights.

A workdir holds `run.json` (the config), `model/` (config.json and tokenizer, as an export needs them) and
`checkpoints/`. Here they are looked at; `load.py` loads them.
"""

import json
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from amopo_jax import processes
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_config import from_hf, to_hf
from amopo_jax.models.hf_import import check_model_dir, load_config
from amopo_jax.models.transformer import abstract_params
from amopo_jax.remote import local_folder
from amopo_jax.run_codec import from_dict, to_dict
from amopo_jax.run_spec import RunSpec
from amopo_jax.types import InputError

RUN_FILE, MODEL_FOLDER = "run.json", "model"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class PolicySource(NamedTuple):
  """A policy that was found and checked, not yet loaded.

  Attributes:
    config: of the decoder.
    hf_config: content of its config.json.
    path: Hugging Face directory or hub name, or workdir; "" for random weights.
    step: checkpoint of a workdir, else None.
    tokenizer: directory or hub name of its tokenizer, "" where it has none.
  """

  config: ModelConfig
  hf_config: dict[str, Any]
  path: str
  step: int | None
  tokenizer: str


def is_workdir(path: str) -> bool:
  """Whether the folder is that of a run."""
  return bool(path) and (epath.Path(path) / RUN_FILE).exists()


def has_adapters(workdir: str) -> bool:
  """Whether a run's checkpoints hold adapters only; runs of versions without the key hold whole models."""
  return bool(_config_of(workdir).get("lora", {}).get("rank"))


def saved_dtype(workdir: str) -> str:
  """Name of the type in which a run keeps its parameters."""
  return _config_of(workdir)["model"]["param_dtype"]


def _config_of(workdir: str) -> dict[str, Any]:
  """Of a run that any version may have written."""
  try:
    return json.loads((epath.Path(workdir) / RUN_FILE).read_text())["config"]
  except (json.JSONDecodeError, KeyError):
    return to_dict(read_run(workdir).spec)  # which says what is broken


def find_policy(path: str, arch: dict[str, Any], *, step: int | None = None) -> PolicySource:
  """Checks a policy's source; reads no weights.

  Args:
    path: Hugging Face directory or hub name, workdir, or "" for random weights of `arch`.
    arch: fields of a config.json; beside a path, whose architecture they must describe, they may be empty.
    step: checkpoint of a workdir; None: the newest.

  Raises:
    InputError: nothing there, files that are incomplete, an architecture that is not supported, or another than `arch`.
  """
  if not path:
    return PolicySource(find_config(path, arch), dict(arch), "", None, "")
  if step is not None and not is_workdir(path):
    raise InputError(f"{path}: a step was named, but this is not a workdir (it has no {RUN_FILE})")
  source = _find_in_workdir(path, step) if is_workdir(path) else _find_pretrained(path)
  if arch:
    _check_same(from_hf(arch, "config.model.arch"), source)
  return source


def find_config(path: str, arch: dict[str, Any]) -> ModelConfig:
  """The decoder's hyper-parameters alone: from `arch` where it is given, else from the config.json of `path`.

  Args:
    path: Hugging Face directory or hub name, workdir, or "".
    arch: fields of a config.json, or empty; with them nothing is read or fetched.

  Raises:
    InputError: neither is given, nothing is there, or an architecture that is not supported.
  """
  if arch:
    return from_hf(arch, "config.model.arch")
  if not path:
    raise InputError("config.model: neither path nor arch is set; name a model, or give the fields of a config.json")
  return load_config(local_folder(str(epath.Path(path) / MODEL_FOLDER)) if is_workdir(path) else path)[0]


def count_parameters(config: ModelConfig) -> int:
  """Number of parameters of a decoder."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config, jnp.float32)))


class RunRecord(NamedTuple):
  """Content of `run.json`: what a resume must agree with.

  Attributes:
    spec: the config.
    num_steps: steps that the schedule was made for.
    fingerprint: of the tokenizer.
  """

  spec: RunSpec
  num_steps: int
  fingerprint: str


def read_run(workdir: str) -> RunRecord:
  """The record of a workdir."""
  path = epath.Path(workdir) / RUN_FILE
  if not path.exists():
    raise InputError(f"{workdir}: not a workdir (no {RUN_FILE}); give the --workdir of a training run")
  try:
    content = json.loads(path.read_text())
    return RunRecord(from_dict(content["config"]), content["num_steps"], content["fingerprint"])
  except InputError as error:
    raise InputError(
      f"{path}: {error}; another version of amopo_jax wrote it: use that one, or a new workdir"
    ) from None
  except (json.JSONDecodeError, KeyError, TypeError) as error:
    raise InputError(f"{path}: broken ({error}); restore the file or use a new workdir") from None


def write_run(workdir: str, record: RunRecord) -> None:
  """Writes the record of a new workdir."""
  content = {"num_steps": record.num_steps, "fingerprint": record.fingerprint, "config": to_dict(record.spec)}
  write_atomically(epath.Path(workdir) / RUN_FILE, json.dumps(content, indent=1) + "\n")


def write_atomically(path: epath.Path, text: str) -> None:
  """Writes a small file so that a reader, or a restart, sees all of it or nothing."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if "://" in str(path):  # object stores replace whole objects
    path.write_text(text)
    return
  fresh = path.with_name(path.name + ".new")
  fresh.write_text(text)
  fresh.replace(path)


def _check_same(config: ModelConfig, source: PolicySource) -> None:
  """Refuses an `arch` that is not that of the model beside it; how random weights are drawn does not matter."""
  given, found = to_hf(config), to_hf(source.config)
  for key in given:
    if key != "initializer_range" and given[key] != found[key]:
      raise InputError(
        f"config.model.arch.{key}: {json.dumps(given[key])}, but {source.path} has {json.dumps(found[key])}; "
        "correct arch, leave it empty, or name the model that it describes"
      )


def _find_pretrained(path: str) -> PolicySource:
  config = check_model_dir(path)
  return PolicySource(config, load_config(path)[1], path, None, local_folder(path) if "://" in path else path)


def _find_in_workdir(path: str, step: int | None) -> PolicySource:
  model, checkpoints = epath.Path(path) / MODEL_FOLDER, epath.Path(path) / "checkpoints"
  entries = [entry for entry in checkpoints.iterdir() if entry.name.isdigit()] if checkpoints.exists() else []
  if path.startswith("gs://"):  # where nothing can be renamed, Orbax writes under the final name, and this at the end
    entries = [entry for entry in entries if (entry / "commit_success.txt").exists()]
  found = sorted(int(entry.name) for entry in entries)
  if step is None:  # a run may save meanwhile, and its processes see the folder one after the other
    step = processes.from_first(max(found, default=None))
  if not found or (step is not None and step not in found):
    missing = "" if step is None else f" {step}"
    raise InputError(f"{path}: no checkpoint{missing}; there are {found or 'none yet, train first'}")
  try:
    hf_config = json.loads((model / "config.json").read_text())
  except (OSError, json.JSONDecodeError) as error:
    raise InputError(f"{model}/config.json: cannot be read ({error}); copy the workdir again") from None
  return PolicySource(from_hf(hf_config, str(model)), hf_config, path, step, local_folder(str(model)))

"""`amopo export --adapters`: the adapters of a checkpoint alone, as a directory that peft loads onto their base."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError

from amopo_jax import build, processes
from amopo_jax.build_step import storing_mesh
from amopo_jax.load import load_adapters
from amopo_jax.mesh import replicated
from amopo_jax.models.hf_export import check_out_dir
from amopo_jax.models.peft_export import write_adapters
from amopo_jax.policy import find_policy, has_adapters, is_workdir, read_run
from amopo_jax.remote import write_folder
from amopo_jax.types import InputError


def export_adapters(workdir: str, out: str, *, step: int | None = None, dtype: str = "") -> int:
  """Writes adapter_config.json and adapter_model.safetensors of a run with adapters.

  Args:
    workdir: of the run.
    out: directory, local or gs://, that does not exist yet, or is empty.
    step: checkpoint; None: the newest.
    dtype: of the file: float32 or bfloat16; "": as they were trained.

  Returns:
    The checkpoint's step.

  Raises:
    InputError: no such run or step, one that trained the whole model, or `out` is in use or cannot be written.
  """
  if not is_workdir(workdir):
    raise InputError(f"{workdir}: not a workdir; give the --workdir of a training run")
  if not has_adapters(workdir):
    raise InputError(f"{workdir}: trained the whole model, and has no adapters; export it without --adapters")
  check_out_dir(out)
  spec, source = read_run(workdir).spec, find_policy(workdir, {}, step=step)
  trained = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  written = build.dtype("--dtype", dtype) if dtype else trained
  adapters = load_adapters(source, spec, replicated(storing_mesh(spec, source.config)))
  if jax.process_index() == 0:
    arguments = {"rank": spec.lora.rank, "alpha": spec.lora.alpha, "base": spec.model.path, "dtype": np.dtype(written)}
    _write(out, lambda folder: write_adapters(folder, adapters, source.config, **arguments))
  processes.meet()
  return int(source.step or 0)


def _write(out: str, write: Callable[[Path], None]) -> None:
  """Beside it first, so that a folder of that name is complete or not there; in an object store, as it comes."""
  place = Path(out).with_name(f".{Path(out).name}.partial")
  try:
    if "://" in out:
      write_folder(out, write)
      return
    shutil.rmtree(place, ignore_errors=True)
    write_folder(str(place), write)
    if Path(out).exists():
      Path(out).rmdir()  # empty, as was checked
    place.rename(out)
  except (OSError, SafetensorError) as error:
    raise InputError(f"{out}: cannot be written ({error}); free the space or choose another place") from error
  finally:
    shutil.rmtree(place, ignore_errors=True)

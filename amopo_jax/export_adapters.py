"""`amopo export --adapters`: the adapters of a checkpoint alone, as a directory that peft loads onto their base."""

import jax
import numpy as np

from amopo_jax import build, processes
from amopo_jax.load import load_adapters
from amopo_jax.mesh import make_mesh, replicated
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
    InputError: no such run or step, one that trained the whole model, or `out` is in use.
  """
  if not is_workdir(workdir):
    raise InputError(f"{workdir}: not a workdir; give the --workdir of a training run")
  if not has_adapters(workdir):
    raise InputError(f"{workdir}: trained the whole model, and has no adapters; export it without --adapters")
  check_out_dir(out)
  spec, source = read_run(workdir).spec, find_policy(workdir, {}, step=step)
  trained = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  written = build.dtype("--dtype", dtype) if dtype else trained
  adapters = load_adapters(source, spec, replicated(make_mesh(data=1, fsdp=-1, tensor=1)))
  if jax.process_index() == 0:
    arguments = {"rank": spec.lora.rank, "alpha": spec.lora.alpha, "base": spec.model.path, "dtype": np.dtype(written)}
    write_folder(out, lambda folder: write_adapters(folder, adapters, source.config, **arguments))
  processes.meet()
  return int(source.step or 0)

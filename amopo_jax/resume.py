"""Whether a run may go on in a workdir: what must be as its record says, and what is free to change."""

import jax
from etils import epath

from amopo_jax import processes
from amopo_jax.data.tokenizer import Tokenizer
from amopo_jax.policy import RUN_FILE, RunRecord, read_run
from amopo_jax.run_codec import difference
from amopo_jax.run_spec import RunSpec
from amopo_jax.types import InputError

FREE_TO_CHANGE = (
  "config.mesh.",
  "config.optim.offload",
  "config.batch.accumulation",
  "config.data.workers",
  "config.model.remat",
  "config.model.attention",
  "config.model.attention_chunk",
  "config.model.head_chunk",
  "config.model.head_keep",
  "config.model.unroll",
  "config.train.log_every",
  "config.train.eval_every",
  "config.train.save_every",
  "config.train.keep",
  "config.train.tensorboard",
  "config.train.wandb_project",
  "config.train.hang_minutes",
)
"""Keys that a resumed run may change: they do not change what is computed, only where, when and how it is shown."""


def matching_record(spec: RunSpec, workdir: str | None) -> RunRecord | None:
  """The record of a workdir whose run this config continues; None if there is none yet.

  Raises:
    InputError: the workdir belongs to a run of another config.
  """
  if workdir is None or not _has_record(workdir):
    return None
  record = read_run(workdir)
  changed = [line for line in difference(record.spec, spec) if not line.startswith(FREE_TO_CHANGE)]
  if changed:
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    raise InputError(
      f"{workdir}: belongs to a run of another config: {changed[0]}{more}; use another --workdir, or that config"
    )
  return record


def _has_record(workdir: str) -> bool:
  """Asked by process 0 alone: the disk of another may remember for a minute that a file was not there."""
  is_first = jax.process_index() == 0
  return processes.from_first((epath.Path(workdir) / RUN_FILE).exists() if is_first else None)


def check_tokenizer(record: RunRecord | None, tokenizer: Tokenizer, workdir: str | None) -> None:
  """Refuses a tokenizer other than that of the run that goes on.

  Raises:
    InputError: it is another one.
  """
  if record and record.fingerprint != tokenizer.fingerprint:
    raise InputError(
      f"{workdir}: was begun with another tokenizer than {tokenizer.name}; use that one, or a new workdir"
    )

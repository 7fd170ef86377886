"""Where metrics go: `metrics.jsonl`, TensorBoard and, if asked for, Weights & Biases. Process 0 writes.

`metrics.jsonl` is the record of the run: one line per logged step, in order. After a resume, lines beyond the
restored step are cut, so that the file reads as if the run had never stopped.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import jax
from etils import epath

from amopo_jax.types import InputError

METRICS_FILE = "metrics.jsonl"
_UPLOAD_SECONDS = 10.0
"""An object store appends nothing, and takes few versions of an object: it gets the file so often, and when asked."""


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """All complete lines of a workdir's `metrics.jsonl`; a half-written last line is left out."""
  path = epath.Path(workdir) / METRICS_FILE
  if not path.exists():
    return []
  return list(_complete_lines(path.read_text().split("\n")))


class MetricWriter:
  """Writes named values of a step to every place that the run asks for.

  Args:
    workdir: local or gs:// folder.
    start_step: finished steps; what was written beyond them is cut.
    tensorboard: write event files under `<workdir>/tensorboard`.
    wandb_project: project name, "" for none.
    config: shown by Weights & Biases.

  Raises:
    InputError: a W&B project is named and the package is not installed.
  """

  def __init__(
    self, workdir: str, *, start_step: int, tensorboard: bool, wandb_project: str, config: Mapping[str, Any]
  ):
    self._writes = jax.process_index() == 0
    self._path = epath.Path(workdir) / METRICS_FILE
    self._board = self._wandb = None
    if not self._writes:
      return
    self._is_remote, self._uploaded = "://" in str(self._path), 0.0
    kept = [line for line in read_metrics(workdir) if line["step"] <= start_step]
    self._lines = [json.dumps(line) for line in kept]
    self._rewrite()
    if tensorboard:
      from tensorboardX import SummaryWriter

      self._board = SummaryWriter(str(epath.Path(workdir) / "tensorboard"), purge_step=start_step + 1, flush_secs=30)
    if wandb_project:
      self._wandb = _start_wandb(wandb_project, str(workdir), config)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one line; NaN is written as null, so that the file stays JSON, and left out of TensorBoard."""
    if not self._writes:
      return
    line = json.dumps({"step": step} | {k: _json_number(v) for k, v in values.items()})
    self._append(line)
    if self._board is not None:
      for name, value in values.items():
        if math.isfinite(value):  # its writer warns of others
          self._board.add_scalar(name, value, step)
    if self._wandb is not None:
      self._wandb.log(dict(values), step=step)

  def flush(self) -> None:
    """Puts lines that an object store has not got yet there, before a checkpoint that a run may be resumed from."""
    if self._writes and self._is_remote:
      self._rewrite()

  def __enter__(self) -> "MetricWriter":
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    with contextlib.suppress(*([OSError] if error else [])):  # what ended the run is to be told, not this
      self.close()

  def close(self) -> None:
    """Flushes and closes everything."""
    self.flush()
    if self._board is not None:
      self._board.close()
    if self._wandb is not None:
      self._wandb.finish()

  def _append(self, line: str) -> None:
    self._lines.append(line)
    if self._is_remote:
      if time.monotonic() - self._uploaded >= _UPLOAD_SECONDS:
        self._rewrite()
      return
    with self._path.open("a") as file:
      file.write(line + "\n")

  def _rewrite(self) -> None:
    self._path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(line + "\n" for line in self._lines)
    if self._is_remote:
      self._upload(text)
      return
    fresh = self._path.with_name(METRICS_FILE + ".new")
    fresh.write_text(text)
    fresh.replace(self._path)

  def _upload(self, text: str) -> None:
    try:
      self._path.write_text(text)
    except OSError:
      raise
    except Exception as error:  # whatever the store's client raises
      raise OSError(f"{self._path}: {error}") from error
    self._uploaded = time.monotonic()


def last_evaluation(workdir: str) -> int:
  """Step of the newest evaluation in the metrics, -1 without one."""
  return max((line["step"] for line in read_metrics(workdir) if "eval_loss" in line), default=-1)


def _complete_lines(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
  for line in lines:
    if line.strip():
      try:
        yield json.loads(line)
      except json.JSONDecodeError:
        return


def _json_number(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None


def _start_wandb(project: str, workdir: str, config: Mapping[str, Any]) -> Any:
  try:
    import wandb
  except ImportError:
    raise InputError("config.train.wandb_project: the package wandb is not installed; pip install wandb") from None
  return wandb.init(project=project, dir=workdir, config=dict(config), resume="allow", id=_run_id(workdir))


def _run_id(workdir: str) -> str:
  """The same run after a resume: kept in the workdir."""
  path = epath.Path(workdir) / "wandb_id"
  if not path.exists():
    import uuid

    path.write_text(uuid.uuid4().hex[:8])
  return path.read_text().strip()

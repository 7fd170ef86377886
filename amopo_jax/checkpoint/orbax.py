"""How Orbax keeps and writes checkpoints here."""

import json
import logging
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import type_handlers

from amopo_jax.types import InputError

_log = logging.getLogger(__name__)


def array_handler() -> ocp.PyTreeCheckpointHandler:
  """Writes each array from its first replica: Orbax's default, a slice from every one, compiles at the first save."""
  arrays = type_handlers.ArrayHandler(use_replica_parallel=False)
  registry = type_handlers.create_type_handler_registry((jax.Array, arrays))
  return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


class Manager(ocp.CheckpointManager):
  """Tells of a save that fails in the background, before its process waits for the others.

  Args:
    failed: called in the background with what was raised, whichever part of the save it came from.
    arguments, options: of Orbax's manager.
  """

  def __init__(self, *arguments: Any, failed: Callable[[Exception], None], **options: Any):
    self._failed = failed
    super().__init__(*arguments, **options)

  def _wait_for_checkpointers(self) -> None:  # Orbax has no public door here
    try:
      super()._wait_for_checkpointers()
    except Exception as error:
      self._failed(error)
      raise


def check_metrics(path: epath.Path, *, read_only: bool) -> None:
  """Removes broken files of metrics: Orbax reads them all at the start.

  Args:
    path: of the checkpoints.
    read_only: refuses them instead.

  Raises:
    InputError: one is broken, and must not be removed.
  """
  for file in path.glob("*/metrics/metrics"):
    try:
      json.loads(file.read_text())
    except json.JSONDecodeError as error:
      if read_only:
        raise InputError(f"{file}: broken ({error}); remove it, only the best checkpoint is told by it") from None
      _log.warning("%s is broken; removed, its checkpoint is not taken for the best", file)
      file.unlink(missing_ok=True)

"""How Orbax writes the items of a checkpoint."""

from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers


def array_handler() -> ocp.PyTreeCheckpointHandler:
  """Writes each array from its first replica: Orbax's default, a slice from every one, compiles at the first save."""
  arrays = type_handlers.ArrayHandler(use_replica_parallel=False)
  registry = type_handlers.create_type_handler_registry((jax.Array, arrays))
  return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


class _Telling:
  """A write in the background that tells of its failure where it fails; no tuple, since Orbax takes these apart."""

  def __init__(self, write: Any, failed: Callable[[Exception], None]):
    self._write, self._failed = write, failed

  def result(self, timeout: float | int | None = None) -> Any:
    try:
      return self._write.result(timeout)
    except Exception as error:
      self._failed(error)
      raise


def telling(handler: Any, failed: Callable[[Exception], None]) -> Any:
  """The handler, whose writes in the background tell of their failures.

  Args:
    handler: of an item.
    failed: called in the thread that writes.
  """
  save = handler.async_save

  async def async_save(*arguments: Any, **options: Any) -> list[_Telling]:
    writes = await save(*arguments, **options) or ()  # of Orbax's, some are None
    return [_Telling(write, failed) for write in writes if write is not None]

  handler.async_save = async_save
  return handler

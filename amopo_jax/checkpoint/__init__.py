"""Checkpoints of a run, by Orbax: `<workdir>/checkpoints/<step>/{state,meta}`.

A checkpoint holds the arrays of the state and, as JSON, all that makes the continuation exact: the state of the input
pipeline, the config and the tokenizer's fingerprint. Saving is asynchronous and atomic: a step's folder appears under
its final name only when it is complete, and older ones are removed only after that.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from amopo_jax.checkpoint.orbax import Manager, array_handler, check_metrics
from amopo_jax.state import TrainState, digests
from amopo_jax.types import InputError, RunFailure

_log = logging.getLogger(__name__)

_SAVE_SECONDS = 4 * 3600
"""For all of a save; Orbax's own twenty minutes are too few for hundreds of GB on a slow store."""

_DIGESTS = "digests"
"""Key of the metadata under which the checksums of the arrays are kept."""


class Restored(NamedTuple):
  """A checkpoint's content.

  Attributes:
    step: number of finished steps.
    state: arrays under the target shardings.
    meta: JSON saved beside them.
  """

  step: int
  state: TrainState
  meta: dict[str, Any]


class Checkpoints:
  """The checkpoints of one workdir.

  Args:
    workdir: local or gs:// folder.
    keep: how many of the newest to keep.
    best_metric: name of the evaluation metric whose best checkpoint is kept as well; "" keeps none.
    best_is_highest: which direction is better.
    read_only: leaves the folder as it is; else a save that has not ended, which may be that of a run in there, is
      taken for the remains of a killed one and removed.
    failed: hears at once of a save that fails in the background; one that returns has it raised at the next save. Of
      several processes, the others would wait for this one, and Orbax raises only after that.
    from_first: process 0's value, on every process; a shared disk may show each of them other files.
  """

  def __init__(
    self,
    workdir: str,
    *,
    keep: int = 3,
    best_metric: str = "",
    best_is_highest: bool = True,
    read_only: bool = False,
    failed: Callable[[str], None] = lambda line: None,
    from_first: Callable[[Any], Any] = lambda value: value,
  ):
    self._from_first = from_first
    self.path = (
      epath.Path(workdir).absolute() / "checkpoints" if "://" not in workdir else epath.Path(workdir) / "checkpoints"
    )
    kept: list[policies.PreservationPolicy] = [policies.LatestN(n=keep)]
    value_of = (lambda metrics: metrics[best_metric]) if best_metric else None
    if value_of:
      # Orbax keeps the largest value; a checkpoint saved between evaluations has no metric and is not "best".
      kept.append(
        policies.BestN(get_metric_fn=value_of, reverse=not best_is_highest, n=1, keep_checkpoints_without_metrics=False)
      )
    options = ocp.CheckpointManagerOptions(
      best_fn=None if read_only else value_of,  # without it no metric is written, and a resumed run knows none
      preservation_policy=None if read_only else policies.AnyPreservationPolicy(kept),
      cleanup_tmp_directories=not read_only,
      create=not read_only,
      read_only=read_only,
      async_options=ocp.AsyncOptions(timeout_secs=_SAVE_SECONDS),
    )
    if read_only or jax.process_index() == 0:
      check_metrics(self.path, read_only=read_only)
    if not read_only:
      from_first(None)  # then they are mended
    handlers = {"state": array_handler(), "meta": ocp.JsonCheckpointHandler()}
    tell = lambda error: failed(self._unwritten(error))
    self._manager = Manager(self.path, options=options, item_handlers=handlers, failed=tell)

  def latest_step(self) -> int | None:
    """The newest complete step, None before the first."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """All complete steps, oldest first."""
    return sorted(self._manager.all_steps())

  def save(self, state: TrainState, meta: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> None:
    """Starts to save; returns once the arrays are copied off the devices.

    Args:
      state: what to save, under the number `state.step`; a step that is there already is left alone.
      meta: JSON-able.
      metrics: of an evaluation of this very state, if there was one.

    Raises:
      RunFailure: this save, or the one before, could not be written.
    """
    step = int(state.step)
    if self._from_first(step in self._manager.all_steps()):
      return
    content = dict(meta) | {_DIGESTS: digests(state)}
    args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(content))
    with self._failing_clearly():
      self._manager.save(step, args=args, metrics=dict(metrics) if metrics else None, force=True)

  def restore(self, target: TrainState) -> Restored | None:
    """The newest checkpoint that can be read, under the target's shardings.

    Where a checkpoint cannot be read, the one before it is tried. Once one could be read, those that could not are
    moved to `<workdir>/unreadable/` with a warning, so that the run goes on and the evidence stays; while none could,
    the reason may lie elsewhere, in too small a memory or a store that is away, and all stay where they are. Of several
    processes each reads its own part, and what one cannot read another can: they stop.

    Args:
      target: `jax.ShapeDtypeStruct`s with shardings; any mesh.

    Returns:
      None if there is no checkpoint at all.

    Raises:
      InputError: there are checkpoints, and none can be read.
      RunFailure: one of several processes cannot read the newest.
    """
    broken: dict[int, str] = {}
    for step in reversed(self._from_first(self.steps())):
      try:
        restored = self._restore_twice(step, target)
      except Exception as error:  # Orbax raises a bare Exception for a lost array file, among others
        broken[step] = _line(error)
        if jax.process_count() > 1:
          raise RunFailure(
            f"{self.path}/{step}: cannot be read ({broken[step]}); if it is broken, move it away, and the same command "
            "goes on from the one before"
          ) from error
        continue
      for number, why in broken.items():
        _log.warning("checkpoint %s/%d cannot be read (%s); using %d, before it", self.path, number, why, step)
        self._set_aside(number)
      return restored
    if broken:
      last = next(iter(broken.values()))
      raise InputError(
        f"{self.path}: none of the checkpoints {sorted(broken)} can be read, and all are left there ({last})"
      )
    return None

  def _restore_twice(self, step: int, target: TrainState) -> Restored:
    """Of one process, once more after an error: a disk or a store may fail to answer once."""
    if jax.process_count() == 1:
      with contextlib.suppress(OSError, ValueError):
        return self.restore_step(step, target)
    return self.restore_step(step, target)

  def restore_step(self, step: int, target: TrainState) -> Restored:
    """One checkpoint by number; whatever Orbax raises if it is missing or broken, ValueError if it is not as saved."""
    arrays = ocp.args.PyTreeRestore(item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))
    args = ocp.args.Composite(state=arrays, meta=ocp.args.JsonRestore())
    found = self._manager.restore(step, args=args)
    self._verify(step, digests(found["state"]), found["meta"].pop(_DIGESTS, None))
    return Restored(step, found["state"], found["meta"])

  def restore_params(self, step: int, target: Any) -> Any:
    """The parameters of one checkpoint, without the optimizer's state, under the target's shardings.

    Raises:
      InputError: it cannot be read, or is not what was saved.
    """
    try:
      params = self._read_params(step, target)
      self._verify(step, digests({"params": params}), self.read_meta(step).get(_DIGESTS))
    except Exception as error:  # Orbax raises a bare Exception for a lost array file, among others
      raise InputError(f"{self.path}/{step}: cannot be read ({_line(error)}); name another one with --step") from error
    return params

  def read_meta(self, step: int) -> dict[str, Any]:
    """The JSON saved beside the arrays of one checkpoint."""
    return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

  def _verify(self, step: int, found: Mapping[str, int], saved: Mapping[str, int] | None) -> None:
    """Refuses arrays whose bits are not those that were saved; disks and copies do lose some."""
    if saved is None:
      _log.warning("checkpoint %s/%d has no checksums (saved by an older version); used unverified", self.path, step)
      return
    plain = {name.replace(".params", "['params']", 1): value for name, value in saved.items()} | dict(saved)
    for name, value in found.items():
      if plain[name] != value:
        raise ValueError(f"{name} is not what was saved")

  def _read_params(self, step: int, target: Any) -> Any:
    restore_args = ocp.checkpoint_utils.construct_restore_args({"params": target})
    item = ocp.args.PyTreeRestore(item={"params": target}, restore_args=restore_args, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      return reader.restore(self.path / str(step) / "state", args=item)["params"]

  def wait(self) -> None:
    """Blocks until the save under way is complete; RunFailure if it could not be written."""
    with self._failing_clearly():
      self._manager.wait_until_finished()
      self._manager.check_for_errors()

  def close(self) -> None:
    """Waits and frees the threads."""
    self._manager.close()

  @contextlib.contextmanager
  def _failing_clearly(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError) as error:  # tensorstore reports a full disk as a ValueError
      raise RunFailure(self._unwritten(error)) from error

  def _unwritten(self, error: Exception) -> str:
    remedy = "find out why the store is slow" if isinstance(error, TimeoutError) else "make room"
    return (
      f"{self.path}: a checkpoint cannot be written ({_line(error)}); complete so far: {self.steps() or 'none'}; "
      f"{remedy} and start again with the same command"
    )

  def _set_aside(self, step: int) -> None:
    aside = self.path.parent / "unreadable"
    aside.mkdir(parents=True, exist_ok=True)
    names = (f"{step}{f'-{again}' if again else ''}" for again in itertools.count())
    (self.path / str(step)).rename(next(aside / name for name in names if not (aside / name).exists()))
    self._manager.reload()


def _line(error: BaseException) -> str:
  return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]

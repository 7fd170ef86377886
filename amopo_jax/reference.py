"""Log-probabilities under the policy that training starts from: computed once, kept with the run and on this machine.

Objectives with a reference take them from the pairs (`PairInfo.reference`), so that no second model is held in memory.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float32

from amopo_jax import processes
from amopo_jax.build_objective import needs_reference
from amopo_jax.data.layout import EVERYTHING
from amopo_jax.data.pipeline import make_stream
from amopo_jax.feed import Feed
from amopo_jax.lora import Base
from amopo_jax.prepare import Run, identify
from amopo_jax.state import digests
from amopo_jax.stopping import StoppedError, StopRequest
from amopo_jax.types import Params, RunFailure

Table = Float32[np.ndarray, "N K P"]
"""Sums of log-probabilities, nats, by the number of the pair among all pairs of the run, held-out ones too."""


def reference_of(
  run: Run,
  workdir: str,
  base: Base,
  stop: StopRequest | None = None,
  *,
  progressed: Callable[[], None] = lambda: None,
) -> Table | None:
  """The reference log-probabilities of a run; None where its objective needs none.

  Args:
    run: of `prepare`; its initial policy is the reference.
    workdir: where they are kept for the run; beside that, a folder of this machine serves other runs with the same
      policy and pairs.
    base: the frozen part of the policy.
    stop: a request to stop; None: nobody can ask.
    progressed: called after every batch.

  Returns:
    Sums by pair, context and member.

  Raises:
    StoppedError: there was one while they were computed; nothing is kept.
    RunFailure: some are not finite.
  """
  if not needs_reference(run.spec.objective):
    return None
  name, is_first, content = f"reference-{_key(run)}", jax.process_index() == 0, None
  place = epath.Path(workdir) / f"{name}.npy"
  if not processes.from_first(place.exists() if is_first else None):
    content = _take_or_compute(run, base, name, StopRequest() if stop is None else stop, progressed)
    if is_first:
      _write(place, content)
  processes.meet()
  return np.load(io.BytesIO(content or place.read_bytes()))


def _take_or_compute(run: Run, base: Base, name: str, stop: StopRequest, progressed: Callable[[], None]) -> bytes:
  """Of this machine's folder, by the weights' digest: a model that is trained again keeps its path; b"" elsewhere."""
  params, is_first = run.init().params, jax.process_index() == 0
  weights = hashlib.sha256(json.dumps([digests(params), base.fingerprint], sort_keys=True).encode()).hexdigest()[:16]
  cached = epath.Path(_cache()) / f"{name}-{weights}.npy"
  if processes.from_first(cached.exists() if is_first else None):
    return cached.read_bytes() if is_first else b""
  content = _to_bytes(_compute(run, params, base, stop, progressed))
  if is_first:
    with contextlib.suppress(OSError):
      _write(cached, content)
  return content


_FREE = ("workers", "shuffle", "contexts_per_pair")
"""Keys of the data on which no log-probability depends."""


def _key(run: Run) -> str:
  """Digest of all that the sums depend on but the weights, which a run does not need again when it is resumed."""
  spec = run.spec
  data = {key: value for key, value in dataclasses.asdict(spec.data).items() if key not in _FREE}
  model = {key: getattr(spec.model, key) for key in ("path", "param_dtype", "compute_dtype")}
  found = {key: value for key, value in identify(run).items() if key != "steps"}
  told = {"found": found, "data": data, "model": model, "step": run.source.step}
  told |= {"seed": None if run.source.path else spec.seed, "row_length": spec.batch.row_length}
  told |= {"group_rows": spec.batch.group_rows}  # a pair has to fit into them
  return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _cache() -> Path:
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return Path(home) / "amopo_jax" / "reference"


def _compute(
  run: Run, params: Params, base: Base, stop: StopRequest, progressed: Callable[[], None] = lambda: None
) -> Table:
  """One pass over every pair with the initial policy."""
  datasets = [dataset.laying_out(EVERYTHING) for dataset in (*run.data.train, *run.data.heldout)]
  table = np.full((sum(map(len, datasets)), len(run.data.contexts.names), 2), np.nan, np.float32)
  for dataset in datasets:
    stream = make_stream(
      [dataset],
      run.data.pack,
      seed=0,
      num_epochs=1,
      num_streams=run.feed.num_streams,
      owned=run.feed.owned,
      num_workers=0,
      shuffle=False,
    )
    feed = Feed(stream, run.feed, stop)
    for batch in feed:
      index, sums = jax.tree.map(np.asarray, run.score_step(params, batch, base.params))
      is_real = index.reshape(-1) >= 0
      table[index.reshape(-1)[is_real]] = sums[is_real]
      progressed()
    if feed.is_stopped:
      raise StoppedError
  if not np.isfinite(table).all():
    raise RunFailure(f"reference: {int((~np.isfinite(table)).sum())} log-probabilities are not finite")
  return table


def _to_bytes(table: Any) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, table)
  return buffer.getvalue()


def _write(path: epath.Path, content: bytes) -> None:
  """Beside the file, then renamed, so that it is whole or not there."""
  path.parent.mkdir(parents=True, exist_ok=True)
  fresh = path.with_name(f"{path.name}.{os.getpid()}")
  fresh.write_bytes(content)
  fresh.replace(path)

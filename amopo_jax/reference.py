"""Log-probabilities under the policy that training starts from: computed once, kept with the run and on this machine.

Objectives with a reference take them from the pairs (`PairInfo.reference`), so that no second model is held in memory.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float32

from amopo_jax import processes
from amopo_jax.build_objective import needs_reference
from amopo_jax.data.pipeline import make_stream
from amopo_jax.feed import Feed
from amopo_jax.lora import Base
from amopo_jax.prepare import Run, identify
from amopo_jax.stopping import StopRequest

Table = Float32[np.ndarray, "N K P"]
"""Sums of log-probabilities, nats, by the number of the pair among all pairs of the run, held-out ones too."""


def reference_of(run: Run, workdir: str, base: Base) -> Table | None:
  """The reference log-probabilities of a run; None where its objective needs none.

  Args:
    run: of `prepare`; its initial policy is the reference.
    workdir: where they are kept for the run; beside that, a folder of this machine serves other runs with the same
      policy and pairs.
    base: the frozen part of the policy.

  Returns:
    Sums by pair, context and member.
  """
  if not needs_reference(run.spec.objective):
    return None
  name = f"reference-{_key(run)}.npy"
  place, cached = epath.Path(workdir) / name, epath.Path(_cache()) / name
  content = None
  if jax.process_index() == 0 and not place.exists() and cached.exists():
    _write(place, cached.read_bytes())
  if not processes.from_first(place.exists() if jax.process_index() == 0 else None):
    content = _to_bytes(_compute(run, base))
    if jax.process_index() == 0:
      _write(place, content)
      with contextlib.suppress(OSError):
        _write(cached, content)
  processes.meet()
  return np.load(io.BytesIO(content or place.read_bytes()))


def _key(run: Run) -> str:
  """Digest of all that the sums depend on."""
  spec = run.spec
  data = {key: value for key, value in dataclasses.asdict(spec.data).items() if key not in ("workers", "shuffle")}
  model = {key: getattr(spec.model, key) for key in ("path", "param_dtype", "compute_dtype")}
  told = {"found": identify(run), "data": data, "model": model, "step": run.source.step}
  told |= {"seed": None if run.source.path else spec.seed, "row_length": spec.batch.row_length}
  return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _cache() -> Path:
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return Path(home) / "amopo_jax" / "reference"


def _compute(run: Run, base: Base) -> Table:
  """One pass over every pair with the initial policy."""
  params = run.init().params
  datasets = (*run.data.train, *run.data.heldout)
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
    for batch in Feed(stream, run.feed, StopRequest()):
      index, sums = jax.tree.map(np.asarray, run.score_step(params, batch, base.params))
      is_real = index.reshape(-1) >= 0
      table[index.reshape(-1)[is_real]] = sums[is_real]
  if not np.isfinite(table).all():
    raise FloatingPointError(f"reference: {int((~np.isfinite(table)).sum())} log-probabilities are not finite")
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

"""Weights and noise for a run of the benchmarks, `python -m benchmarks.materials JOB.json`, in a process of its own.

So that the process that measures holds neither, and the contenders read the same files.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_export import save_model
from amopo_jax.models.transformer import init_params
from amopo_jax.step import draw_noise

NUM_STEPS = 2
"""Steps whose noise is handed out; later steps are timed, not compared."""


def write(folder: Path, fields: dict[str, Any], pairs: int, contexts: int, *, seed: int) -> None:
  """Writes `model/` and `noise.npy`.

  Args:
    folder: exists.
    fields: of config.json.
    pairs, contexts: size of the batch.
    seed: of both; the noise is that of `amopo train` at this seed.
  """
  config = from_hf(fields, "benchmarks")
  params = init_params(config, jax.random.key(seed), jnp.float32)
  save_model(params, config, fields, folder / "model", dtype=jnp.float32)
  rng = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
  steps = [draw_noise(rng, jnp.asarray(step), (1, pairs, contexts, 2))[0] for step in range(NUM_STEPS)]
  np.save(folder / "noise.npy", np.stack([np.asarray(step) for step in steps]))


if __name__ == "__main__":
  said = json.loads(Path(sys.argv[1]).read_text())
  write(Path(said["folder"]), said["fields"], said["pairs"], said["contexts"], seed=said["seed"])

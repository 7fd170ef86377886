"""The machine's matrix-product peak as each library reaches it: one square product per turn, best of a few.

The contenders' rates are shares of it; it takes its turn in every round as they do, so that a slow minute of the
machine slows both.
"""

import time
from collections.abc import Callable

from benchmarks.peers.serve import Counts, Job, Loss, Trainer, peak_resident, serve

REPEATS = 3
SIZE = {"cpu": 4096, "gpu": 8192}


def open_trainer(job: Job) -> Trainer:
  """The product of the job's type; the loss it tells is its rate in FLOP/s."""
  size = job.options.get("size", SIZE[job.device])
  makers = {"jax": jax_product, "torch": torch_product}
  product = makers[job.options["library"]](size, job.dtype, job.device)

  def step() -> Loss:
    seconds = [_timed(product) for _ in range(REPEATS)]
    return Loss(2 * size**3 / min(seconds))

  return Trainer(step, Counts(0, 0, 0), peak_resident)


def jax_product(size: int, dtype: str, device: str) -> Callable[[], object]:
  """x y under jit, waited for."""
  import jax

  del device  # the environment says which
  x, y = (jax.random.normal(jax.random.key(seed), (size, size), dtype) for seed in (0, 1))
  product = jax.jit(lambda x, y: x @ y)
  return lambda: jax.block_until_ready(product(x, y))


def torch_product(size: int, dtype: str, device: str) -> Callable[[], object]:
  """x y into a tensor that is there, waited for."""
  import torch

  where = torch.device("cuda" if device == "gpu" else "cpu")
  x, y = (torch.randn(size, size, dtype=getattr(torch, dtype), device=where) for _ in range(2))
  out = torch.empty_like(x)

  def product() -> None:
    torch.matmul(x, y, out=out)
    if device == "gpu":
      torch.cuda.synchronize()

  return product


def _timed(work: Callable[[], object]) -> float:
  began = time.perf_counter()
  work()
  return time.perf_counter() - began


if __name__ == "__main__":
  serve(open_trainer)

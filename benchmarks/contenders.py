"""Who takes part, and how a child process of each is started and asked."""

import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.environments import python_of
from benchmarks.peers.serve import Counts, Job

ROOT = Path(__file__).parent.parent


class Contender(NamedTuple):
  """One row of the table.

  Attributes:
    label: its name there.
    module: of `benchmarks.peers`.
    loss: which loss it trains on: amopo, simpo, orpo; "" for none.
    environment: name of its requirements; "" for this one.
    options: of its job.
    xla_flags: of its process.
  """

  label: str
  module: str
  loss: str = "amopo"
  environment: str = ""
  options: Mapping[str, Any] = MappingProxyType({})
  xla_flags: str = ""


CONTENDERS = {
  "ours": Contender("ours, shared prompts", "ours", options={"shared": True}),
  "unshared": Contender("(c) ours, unshared", "ours", options={"shared": False}),
  "released": Contender("(a) released, torch", "torch_released"),
  "clean_packed": Contender("(b) clean torch, packed", "torch_clean", options={"packed": True}),
  "clean_single": Contender("(b) clean torch, one by one", "torch_clean", options={"packed": False}),
  "tunix": Contender("(d) Tunix ORPO", "tunix_orpo", "orpo", "tunix"),
  "trl": Contender("(d) TRL CPO/SimPO", "trl_cpo", "simpo", "trl"),
  "easydel": Contender("(d) EasyDeL CPO/SimPO", "easydel_cpo", "simpo", "easydel"),
}
PEAKS = {
  "matmul_jax": Contender("matrix product, XLA", "matmul", "", options={"library": "jax"}),
  "matmul_torch": Contender("matrix product, torch", "matmul", "", options={"library": "torch"}),
}


class WorkerFailure(RuntimeError):
  """A child died or fell silent: the last line of what it said."""


class Worker:
  """A child process that waits until it is asked for a step.

  Args:
    contender: who.
    job: what it is given; its own options are added.
    cache: folder of the environments.
    timeout: seconds that an answer may take.

  Raises:
    InstallFailure: its environment cannot be made.
    WorkerFailure: it did not get ready.
  """

  def __init__(self, contender: Contender, job: Job, *, cache: Path, timeout: float):
    python = python_of(contender.environment, cache, job.device)
    self._timeout, self._folder = timeout, tempfile.TemporaryDirectory()
    self._log, path = Path(self._folder.name) / "log", Path(self._folder.name) / "job.json"
    path.write_text(json.dumps(job._replace(options={**job.options, **contender.options})._asdict()))
    with self._log.open("w") as log:
      self._process = subprocess.Popen(
        [python, "-m", f"benchmarks.peers.{contender.module}", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=ROOT,
        env=environment(job.device, contender.xla_flags),
      )
    counts = self._answer()["counts"]
    self.counts = Counts(**{**counts, "recomputed": tuple(counts["recomputed"])})

  def step(self) -> dict[str, Any]:
    """Lets it make one step: seconds, loss, mean_logps, peak_bytes."""
    if self._process.poll() is None:
      os.write(self._process.stdin.fileno(), b"step\n")
    return self._answer()

  def close(self) -> None:
    """Ends it and waits, so that its memory is free."""
    self._process.kill()
    self._process.wait()
    self._process.stdin.close()
    self._process.stdout.close()
    self._folder.cleanup()

  def _answer(self) -> dict[str, Any]:
    with selectors.DefaultSelector() as selector:
      selector.register(self._process.stdout, selectors.EVENT_READ)
      is_ready = bool(selector.select(self._timeout))
    line = self._process.stdout.readline() if is_ready else b""
    if line:
      return json.loads(line)
    reason = self._last_words() if is_ready else f"no answer in {self._timeout:.0f} s"
    self.close()
    raise WorkerFailure(reason)

  def _last_words(self) -> str:
    status = self._process.wait()
    if status == -signal.SIGKILL:
      return "killed, as when the machine has no memory left"
    said = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
    return said[-1] if said else f"ended with status {status} and no message"


def environment(device: str, xla_flags: str = "") -> dict[str, str]:
  """The children's environment: one device, nothing from a hub, nobody is told."""
  kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
  kept |= {"XLA_FLAGS": xla_flags} if xla_flags else {}
  quiet = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}
  if device == "gpu":
    return kept | quiet | {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  return kept | quiet | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}

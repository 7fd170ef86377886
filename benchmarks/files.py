"""Import and export of a sharded model: seconds against those of its bare files, and peak host memory against its size.

    python -m benchmarks.files [--json=FILE] [--gib=2] [--devices=8] [--rounds=5] [--dtype=bfloat16] [--warm]

Each figure is of a process of its own: one reads the files into memory, one loads them onto virtual devices that split
them by fsdp, one writes the bytes that it has read, one exports what it has loaded. All hold the model once, and touch
some memory before, as pages that a virtual machine has not used for a while may cost several times the copy into them.
On a CPU the devices' arrays are host memory too, so an import cannot take less than the model's size. Before every cell
the system forgets the files' pages, so that both sides read from the disk; --warm leaves them. Memory is what the
process grows by, at its highest: all that is resident, the mapped pages of the files with it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report

_SHARD_BYTES = 500_000_000
_TOUCHED = 3
"""Times the model's size: itself, the files' pages, and those of what is written."""
_FIELDS = {
  "architectures": ["Qwen2ForCausalLM"],
  "model_type": "qwen2",
  "hidden_size": 1024,
  "intermediate_size": 5632,
  "num_attention_heads": 16,
  "num_key_value_heads": 4,
  "vocab_size": 65_536,
  "tie_word_embeddings": False,
  "rms_norm_eps": 1e-6,
  "rope_theta": 1e6,
  "max_position_embeddings": 4096,
  "torch_dtype": "bfloat16",
}


def fields_of(num_bytes: int, itemsize: int) -> dict[str, Any]:
  """A `config.json` of a model that is as large as that, or a little larger."""
  width, inner, head = _FIELDS["hidden_size"], _FIELDS["intermediate_size"], 64
  keys = head * _FIELDS["num_key_value_heads"]
  layer = 2 * width * width + 2 * width * keys + 3 * width * inner
  layers = -(-(num_bytes // itemsize - 2 * _FIELDS["vocab_size"] * width) // layer)
  return {**_FIELDS, "num_hidden_layers": max(1, layers)}


def write_model(folder: Path, fields: dict[str, Any], dtype: str) -> None:
  """Writes a model of random parameters, layer by layer the same."""
  from amopo_jax.models.hf_config import from_hf
  from amopo_jax.models.hf_export import save_model
  from amopo_jax.models.hf_names import leaves, set_leaf

  config, draw, params = from_hf(fields, "benchmarks"), np.random.default_rng(0), {}
  for leaf in leaves(config):
    one = draw.standard_normal(leaf.shape[1:] if leaf.is_stacked else leaf.shape, np.float32)
    set_leaf(params, leaf.path, np.broadcast_to(one, leaf.shape))
  save_model(params, config, fields, folder, dtype=dtype, max_shard_bytes=_SHARD_BYTES)


def read(folder: Path) -> tuple[dict[str, float], list[np.ndarray]]:
  """Reads all bytes of the weights, a file at a time; returns them too, since who reads a model keeps it."""
  began = time.perf_counter()
  buffers = []
  for file in _weights(folder):
    buffer = np.empty(file.stat().st_size, np.uint8)
    with file.open("rb", buffering=0) as stream:
      while stream.readinto(memoryview(buffer)[stream.tell() :]):
        pass
    buffers.append(buffer)
  return {"seconds": time.perf_counter() - began}, buffers


def write(folder: Path, out: Path) -> dict[str, float]:
  """Writes the same bytes out of memory, and waits until they are on the disk."""
  out.mkdir()
  _, buffers = read(folder)
  began = time.perf_counter()
  for file, buffer in zip(_weights(folder), buffers, strict=True):
    with (out / file.name).open("wb") as stream:
      stream.write(buffer.data)
      stream.flush()
      os.fsync(stream.fileno())
  return {"seconds": time.perf_counter() - began}


def load(folder: Path, out: Path | None, dtype: str) -> dict[str, float]:
  """Imports the model; with `out`, exports it, which is then what is measured."""
  import jax

  from amopo_jax.mesh import DEFAULT_RULES, make_mesh, param_shardings
  from amopo_jax.models.hf_export import save_model
  from amopo_jax.models.hf_import import load_config, load_params
  from amopo_jax.models.transformer import abstract_params

  config, fields = load_config(folder)
  mesh = make_mesh(data=1, fsdp=-1, tensor=1)
  shardings = param_shardings(abstract_params(config, np.dtype(dtype)), mesh, DEFAULT_RULES)
  load_all = lambda: jax.block_until_ready(load_params(folder, config, dtype=np.dtype(dtype), shardings=shardings))
  jax.block_until_ready(jax.device_put(0, jax.devices()[0]))
  if out is None:
    with _growth() as found:
      params = load_all()
  else:
    params = load_all()
    with _growth() as found:
      save_model(params, config, fields, out, dtype=dtype, max_shard_bytes=_SHARD_BYTES)
  del params
  return found


@contextmanager
def _growth() -> Iterator[dict[str, float]]:
  """Seconds that the body takes, and GiB by which the process grows in it, at most: resident, and without files."""
  before, most, is_done = _resident(), [0.0, 0.0], threading.Event()

  def watch() -> None:
    while not is_done.wait(0.002):
      most[:] = map(max, most, _resident())

  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  found: dict[str, float] = {}
  began = time.perf_counter()
  yield found
  found["seconds"] = time.perf_counter() - began
  is_done.set()
  watcher.join()
  found["resident"], found["without_files"] = (high - low for high, low in zip(most, before, strict=True))


def _resident() -> list[float]:
  """GiB of the process: all, and without mapped files."""
  lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line)
  return [int(lines[name].split()[0]) / 2**20 for name in ("VmRSS", "RssAnon")]


def forget(folder: Path) -> None:
  """Has the system drop the pages of the weights from its cache."""
  for file in _weights(folder):
    with file.open("rb") as stream:
      os.fsync(stream.fileno())
      os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _weights(folder: Path) -> list[Path]:
  return sorted(folder.glob("*.safetensors"))


def _apart(args: argparse.Namespace, cell: str, folder: Path, out: Path) -> dict[str, float]:
  """A cell in a fresh process."""
  call = [sys.executable, "-m", "benchmarks.files", f"--cell={cell}", f"--folder={folder}", f"--out={out}"]
  call += [f"--dtype={args.dtype}", f"--gib={args.gib}"]
  if not args.warm:
    forget(folder)
  flags = f"--xla_force_host_platform_device_count={args.devices}"
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
  done = subprocess.run(
    call, capture_output=True, text=True, check=True, env=environment, cwd=Path(__file__).parent.parent
  )
  shutil.rmtree(out, ignore_errors=True)
  return json.loads(done.stdout.splitlines()[-1])


def touch_memory(num_bytes: int) -> None:
  """Uses memory and gives it back, so that what follows finds pages that the machine's host has lately provided."""
  np.ones(num_bytes, np.uint8)


def _cell(args: argparse.Namespace) -> dict[str, float]:
  folder, out = Path(args.folder), Path(args.out)
  touch_memory(int(_TOUCHED * args.gib * 2**30))
  if args.cell == "model":
    write_model(folder, fields_of(int(args.gib * 2**30), np.dtype(_numpy(args.dtype)).itemsize), args.dtype)
    return {}
  if args.cell == "read":
    return read(folder)[0]
  if args.cell == "write":
    return write(folder, out)
  return load(folder, out if args.cell == "export" else None, args.dtype)


def _numpy(name: str) -> Any:
  import ml_dtypes

  return getattr(ml_dtypes, name) if name == "bfloat16" else name


def measure(args: argparse.Namespace, place: Path) -> dict[str, Any]:
  """All rounds; the four cells of a round follow each other, so that their ratios are of one moment."""
  folder, out = place / "model", place / "out"
  _apart(args, "model", folder, out)
  size = sum(file.stat().st_size for file in _weights(folder)) / 2**30
  rounds = [{cell: _apart(args, cell, folder, out) for cell in _CELLS} for _ in range(args.rounds)]
  median = lambda of: statistics.median(map(of, rounds))
  sides = {
    verb: {
      "seconds": median(lambda one, verb=verb: one[verb]["seconds"]),
      "files_seconds": median(lambda one, bare=bare: one[bare]["seconds"]),
      "times_the_files": median(lambda one, verb=verb, bare=bare: one[verb]["seconds"] / one[bare]["seconds"]),
      "resident": median(lambda one, verb=verb: one[verb]["resident"]) / size,
      "without_files": median(lambda one, verb=verb: one[verb]["without_files"]) / size,
    }
    for verb, bare in (("import", "read"), ("export", "write"))
  }
  return {"gib": size, "num_files": len(_weights(folder)), **sides, "rounds": rounds}


_CELLS = ("read", "import", "write", "export")


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--json")
  parser.add_argument("--gib", type=float, default=2.0)
  parser.add_argument("--devices", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
  parser.add_argument("--folder", default="")
  parser.add_argument("--warm", action="store_true")
  parser.add_argument("--cell", default="", help=argparse.SUPPRESS)
  parser.add_argument("--out", default="", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.cell:
    print(json.dumps(_cell(args)))
    return
  with tempfile.TemporaryDirectory(dir=args.folder or None) as place:
    found = measure(args, Path(place))
  print(f"{found['gib']:.2f} GiB in {found['num_files']} files, {args.dtype}, {args.devices} devices")
  lines = [("", "seconds", "of the files", "times", "memory / size", "without mapped files")]
  for verb in ("import", "export"):
    one = found[verb]
    lines.append(
      (
        verb,
        f"{one['seconds']:.2f}",
        f"{one['files_seconds']:.2f}",
        f"{one['times_the_files']:.2f}",
        f"{one['resident']:.2f}",
        f"{one['without_files']:.2f}",
      )
    )
  print(report.align(lines))
  if args.json:
    report.write(args.json, found)


if __name__ == "__main__":
  main()

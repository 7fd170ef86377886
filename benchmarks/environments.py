"""A virtual environment per peer, made once from its pinned requirements."""

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent / "peers"
DONE = "installed"
"""File in an environment that holds the digest of the requirements it was made from."""


class InstallFailure(RuntimeError):
  """A peer cannot be installed: its name and pip's last word."""


def python_of(name: str, cache: Path, device: str = "cpu") -> str:
  """The interpreter of a peer's environment, which is made where it is missing or its requirements have changed.

  Args:
    name: "" is this very environment.
    cache: folder of the environments.
    device: cpu or gpu; a peer may need other wheels there, `requirements-NAME-gpu.txt`.

  Raises:
    InstallFailure: pip refused.
  """
  if not name:
    return sys.executable
  files = [HERE / f"requirements-{name}.txt", HERE / f"requirements-{name}-{device}.txt"]
  files = [file for file in files if file.exists()]
  folder = cache.expanduser() / files[-1].stem.removeprefix("requirements-")
  digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
  python = folder / "bin" / "python"
  if not (folder / DONE).exists() or (folder / DONE).read_text() != digest:
    _run(name, [sys.executable, "-m", "venv", "--clear", str(folder)])
    _run(name, [str(python), "-m", "pip", "install", "--quiet", *(f"--requirement={file}" for file in files)])
    (folder / DONE).write_text(digest)
  return str(python)


def _run(name: str, command: list[str]) -> None:
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
    raise InstallFailure(f"{name} cannot be installed: {said[-1]}")

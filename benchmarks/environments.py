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


def python_of(name: str, cache: Path) -> str:
  """The interpreter of a peer's environment, which is made where it is missing or its requirements have changed.

  Args:
    name: "" is this very environment.
    cache: folder of the environments.

  Raises:
    InstallFailure: pip refused.
  """
  if not name:
    return sys.executable
  requirements, folder = HERE / f"requirements-{name}.txt", cache.expanduser() / name
  digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
  python = folder / "bin" / "python"
  if not (folder / DONE).exists() or (folder / DONE).read_text() != digest:
    _run(name, [sys.executable, "-m", "venv", "--clear", str(folder)])
    _run(name, [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)])
    (folder / DONE).write_text(digest)
  return str(python)


def _run(name: str, command: list[str]) -> None:
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
    raise InstallFailure(f"{name} cannot be installed: {said[-1]}")

"""Runs the scripts of launch/ with clients that only record what they are asked."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
AWKWARD = '--config.data.note=it\'s  "$HOME" `id` $(id) {x} *\\ é\nand more'
"""An argument that only arrives whole if every shell on its way quotes it."""


@dataclasses.dataclass(frozen=True)
class Result:
  status: int
  out: str
  err: str

  @property
  def commands(self) -> list[list[str]]:
    """The printed lines, as a shell reads them."""
    return [split(line) for line in self.out.splitlines()]


def split(line: str) -> list[str]:
  """The words of a line of shell."""
  done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
  return done.stdout.split("\0")[:-1]


RECORD = """#!{python} -SE
import json, os, sys
with open({calls!r}, "a") as file:
  file.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
{body}
"""


class Clients:
  """Programs on PATH in front of all others; `calls` are the argument lists they were called with, in order."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.calls_file = folder / "calls.jsonl"
    self.environment = {
      **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "CUDA_", "XLA_", "JAX_"))},
      "PATH": f"{folder}:{os.environ['PATH']}",
      "HOME": str(folder),
    }

  def add(self, name: str, body: str = "") -> pathlib.Path:
    """A program in Python which records its arguments and then does `body`."""
    path = self.folder / name
    path.write_text(RECORD.format(python=sys.executable, calls=str(self.calls_file), name=name, body=body))
    path.chmod(0o755)
    return path

  @property
  def calls(self) -> list[list[str]]:
    if not self.calls_file.exists():
      return []
    return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

  def run(self, *command: str, cwd: pathlib.Path = ROOT, **environment: str) -> Result:
    environment = {**self.environment, **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def clients(tmp_path):
  """An empty folder of fake programs in front of PATH."""
  folder = tmp_path / "clients"
  folder.mkdir()
  return Clients(folder)

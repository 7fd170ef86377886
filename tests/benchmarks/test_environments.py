import hashlib
import sys

import pytest

from benchmarks import environments
from benchmarks.environments import DONE, InstallFailure, python_of


@pytest.fixture
def requirements(tmp_path, monkeypatch):
  monkeypatch.setattr(environments, "HERE", tmp_path)
  path = tmp_path / "requirements-peer.txt"
  path.write_text("./there-is-no-such-thing\n")
  return path


def test_no_name_is_this_environment(tmp_path):
  assert python_of("", tmp_path) == sys.executable


def test_an_environment_is_made_once_and_again_when_its_requirements_change(requirements, tmp_path, monkeypatch):
  calls = []

  def run(name, command):
    calls.append(command)
    (tmp_path / "cache" / name).mkdir(parents=True, exist_ok=True)

  monkeypatch.setattr(environments, "_run", run)
  for _ in range(2):
    assert python_of("peer", tmp_path / "cache") == str(tmp_path / "cache" / "peer" / "bin" / "python")
  assert len(calls) == 2  # venv, pip
  requirements.write_text("other\n")
  python_of("peer", tmp_path / "cache")
  assert len(calls) == 4
  digest = hashlib.sha256(b"other\n").hexdigest()
  assert (tmp_path / "cache" / "peer" / DONE).read_text() == digest


def test_a_gpu_may_need_other_wheels(requirements, tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(environments, "_run", lambda name, command: asked.extend(command))
  (tmp_path / "cache" / "peer-gpu").mkdir(parents=True)
  (tmp_path / "requirements-peer-gpu.txt").write_text("wheel\n")
  assert python_of("peer", tmp_path / "cache", "gpu") == str(tmp_path / "cache" / "peer-gpu" / "bin" / "python")
  assert asked[-2:] == [f"--requirement={tmp_path}/requirements-peer{kind}.txt" for kind in ("", "-gpu")]


def test_a_refusal_is_one_line():
  with pytest.raises(InstallFailure, match="peer cannot be installed: the last word"):
    environments._run("peer", [sys.executable, "-c", "raise SystemExit('a\\nthe last word')"])

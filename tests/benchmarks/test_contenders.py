from pathlib import Path

import pytest

from benchmarks.contenders import CONTENDERS, PEAKS, ROOT, Worker, WorkerFailure, environment


def worker(job, timeout=120, **options):
  contender = PEAKS["matmul_torch"]._replace(options={"library": "torch", "size": 64, **options})
  return Worker(contender, job, cache=Path(), timeout=timeout)


def test_a_child_answers_and_ends(job):
  pytest.importorskip("torch")
  child = worker(job)
  answer = child.step()
  assert answer["loss"] > 1e6  # FLOP/s
  assert 50e6 < answer["peak_bytes"] < 2e9  # torch alone, not this process with jax
  child.close()


def test_a_child_that_dies_says_why(job):
  with pytest.raises(WorkerFailure, match="KeyError: 'nobody'"):
    worker(job, library="nobody")


def test_a_child_that_is_killed_says_so(job):
  pytest.importorskip("torch")
  child = worker(job)
  child._process.kill()
  with pytest.raises(WorkerFailure, match="no memory left"):
    child.step()


def test_a_child_that_is_silent_is_given_up(job):
  with pytest.raises(WorkerFailure, match="no answer in 0 s"):
    worker(job, timeout=0.01)


def test_every_contender_has_a_module_and_pinned_requirements():
  for contender in CONTENDERS.values():
    assert (ROOT / "benchmarks" / "peers" / f"{contender.module}.py").exists()
    if contender.environment:
      lines = (ROOT / "benchmarks" / "peers" / f"requirements-{contender.environment}.txt").read_text().splitlines()
      assert all("==" in line for line in lines if not line.startswith("#"))


def test_children_see_one_device_and_no_hub(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
  assert "XLA_FLAGS" not in environment("cpu")
  assert environment("cpu", "--xla_cpu_use_xnnpack=false")["XLA_FLAGS"] == "--xla_cpu_use_xnnpack=false"
  assert environment("cpu")["JAX_PLATFORMS"] == "cpu"
  assert environment("gpu")["JAX_PLATFORMS"] == "cuda"
  assert environment("gpu")["HF_HUB_OFFLINE"] == "1"

import json
import math

import pytest

from amopo_jax.types import InputError, RunFailure
from amopo_jax.writers import METRICS_FILE, MetricWriter, read_metrics


def make(workdir, start_step=0, **kwargs):
  return MetricWriter(
    str(workdir), start_step=start_step, **{"tensorboard": False, "wandb_project": "", "config": {}, **kwargs}
  )


def test_lines_come_back_in_order_and_nan_is_null(tmp_path):
  writer = make(tmp_path)
  writer.write(1, {"loss": 0.5})
  writer.write(2, {"loss": math.nan})
  writer.close()
  assert read_metrics(str(tmp_path)) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]


def test_a_resume_cuts_what_lies_beyond_the_restored_step_and_half_a_line(tmp_path):
  writer = make(tmp_path)
  for step in range(1, 6):
    writer.write(step, {"loss": float(step)})
  with (tmp_path / METRICS_FILE).open("a") as file:
    file.write('{"step": 6, "lo')
  resumed = make(tmp_path, start_step=3)
  resumed.write(4, {"loss": 40.0})
  assert [line["loss"] for line in read_metrics(str(tmp_path))] == [1.0, 2.0, 3.0, 40.0]
  assert all(json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines())


def test_a_workdir_without_metrics_reads_as_none(tmp_path):
  assert read_metrics(str(tmp_path)) == []


def test_tensorboard_gets_every_value(tmp_path):
  writer = make(tmp_path, tensorboard=True)
  writer.write(1, {"rewards/margins": 0.25})
  writer.close()
  (events,) = (tmp_path / "tensorboard").iterdir()
  assert b"rewards/margins" in events.read_bytes()


def test_tensorboard_is_spared_what_is_not_finite(tmp_path, caplog):
  writer = make(tmp_path, tensorboard=True)
  writer.write(1, {"rewards/margins": float("nan"), "loss": 2.0})
  writer.close()
  (events,) = (tmp_path / "tensorboard").iterdir()
  assert b"loss" in events.read_bytes()
  assert b"rewards/margins" not in events.read_bytes()
  assert not caplog.records


def test_asking_for_wandb_without_the_package_says_so(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "wandb", None)
  with pytest.raises(InputError, match="pip install wandb"):
    make(tmp_path, wandb_project="p")


def test_wandb_gets_the_values_and_the_same_run_after_a_resume(tmp_path, monkeypatch):
  logged, started = [], []

  class Run:
    def log(self, values, step):
      logged.append((step, values))

    def finish(self):
      logged.append("finished")

  fake = type("wandb", (), {"init": staticmethod(lambda **kwargs: (started.append(kwargs), Run())[1])})
  monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
  for step in (1, 2):
    writer = make(tmp_path, start_step=step - 1, wandb_project="p")
    writer.write(step, {"loss": 1.0})
    writer.close()
  assert logged == [(1, {"loss": 1.0}), "finished", (2, {"loss": 1.0}), "finished"]
  assert started[0]["id"] == started[1]["id"]


def test_an_object_store_gets_the_file_every_few_seconds_and_when_asked(bucket, monkeypatch):
  now = [100.0]
  monkeypatch.setattr("amopo_jax.writers.time.monotonic", lambda: now[0])
  writer = make("gs://bucket/run")
  bucket.written.clear()
  for step in range(1, 5):
    writer.write(step, {"loss": 1.0})
  assert bucket.written == []
  now[0] += 11.0
  writer.write(5, {"loss": 1.0})
  assert len(bucket.written) == 1
  writer.write(6, {"loss": 1.0})
  assert len(read_metrics("gs://bucket/run")) == 5
  writer.flush()
  assert len(read_metrics("gs://bucket/run")) == 6
  writer.write(7, {"loss": 1.0})
  writer.close()
  assert [line["step"] for line in read_metrics("gs://bucket/run")] == list(range(1, 8))


def test_whatever_a_store_raises_is_an_error_of_the_system(bucket, monkeypatch):
  writer = make("gs://bucket/run")
  writer.write(1, {"loss": 1.0})

  def refuse(store, path, mode="rb", **options):
    raise RuntimeError("429: too many requests")

  monkeypatch.setattr(type(bucket), "_open", refuse)
  with pytest.raises(OSError, match=r"metrics.jsonl: 429: too many requests"):
    writer.flush()


def test_what_ended_the_run_is_told_and_not_what_its_end_met(tmp_path, monkeypatch):
  def full(self):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(MetricWriter, "flush", full)
  with pytest.raises(RunFailure, match="not finite"), make(tmp_path):
    raise RunFailure("not finite")
  with pytest.raises(OSError, match="No space"), make(tmp_path):
    pass

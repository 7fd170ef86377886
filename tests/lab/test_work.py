"""What a job refuses and asks; `amopo lab baselines --smoke`, which CI runs, goes through those that train."""

import pytest

from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab import work
from amopo_jax.run_codec import to_dict
from amopo_jax.stopping import StoppedError
from amopo_jax.train import Outcome


def test_a_training_that_a_signal_stopped_is_not_measured(tmp_path, monkeypatch):
  monkeypatch.setattr(work, "train", lambda *given: Outcome(3, "SIGINT"))
  folder = tmp_path / "seed0" / "amopo"
  folder.mkdir(parents=True)
  (tmp_path / "seed0" / "start" / "run").mkdir(parents=True)
  with pytest.raises(StoppedError, match="stopped by SIGINT at step 3; the same command goes on"):
    work.make_policy(
      folder,
      run=to_dict(bundled_spec("lab")),
      world="worlds/default",
      records="files",
      start="seed0/start",
      rival="seed0/start",
      contexts={},
      ask={},
    )


def test_other_scores_are_asked_of_another_job_s_policy(tmp_path, monkeypatch):
  asked = []

  def answer(out, spec, heldout, mode, *, score, **ask):
    asked.append((out.name, spec["model"]["path"], str(heldout), mode, score, ask))

  monkeypatch.setattr(work, "answer_all", answer)
  monkeypatch.setattr(work, "graded", lambda file, judge: [(float(file.stem.removeprefix("asked-")), judge)])
  monkeypatch.setattr(work, "mean_scores", lambda lines: {"overall": lines[0]})
  (tmp_path / "seed0" / "soup" / "model").mkdir(parents=True)
  run, ask = to_dict(bundled_spec("lab")), {"max_new": 8, "draws": 2, "seed": 5}
  judged = ask | {"judge": "python judge.py"}
  given = {"run": run, "policy": "seed0/soup", "world": "worlds/default-0", "scores": [0.0, 3.0], "ask": judged}
  found = work.make_answers(tmp_path / "asked0" / "soup", **given)
  assert found == {"asked": {f"{score:g}": {"overall": (score, "python judge.py")} for score in (0.0, 3.0)}}
  model, heldout = tmp_path / "seed0" / "soup" / "model", tmp_path / "worlds" / "default-0" / "files" / "heldout.jsonl"
  assert asked == [(f"asked-{score:g}.jsonl", str(model), str(heldout), "sampled", score, ask) for score in (0.0, 3.0)]

"""What a job refuses; `amopo lab baselines --smoke`, which CI runs, goes through all of them."""

import pytest

from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab import work
from amopo_jax.run_codec import to_dict
from amopo_jax.train import Outcome
from amopo_jax.types import RunFailure


def test_a_training_that_a_signal_stopped_is_not_measured(tmp_path, monkeypatch):
  monkeypatch.setattr(work, "train", lambda *given: Outcome(3, "SIGINT"))
  folder = tmp_path / "seed0" / "amopo"
  folder.mkdir(parents=True)
  with pytest.raises(RunFailure, match="stopped by SIGINT at step 3; the same command goes on"):
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

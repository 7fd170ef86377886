import pytest

from benchmarks.loop import WINDOW, bare, looped, make_spec

TINY = ["batch.rows=8", "batch.group_rows=8", "batch.row_length=256", "batch.accumulation=1"]
TINY += ["model.arch.num_hidden_layers=1", "model.arch.hidden_size=80", "model.arch.intermediate_size=64"]


@pytest.mark.slow
def test_a_run_and_the_bare_step_are_timed_on_the_same_batches(tmp_path):
  spec = make_spec(tmp_path, 2 * WINDOW, TINY, num_train=200)
  assert spec.batch.rows == 8
  assert looped(spec, tmp_path / "run") > 0
  assert bare(spec, tmp_path / "none") > 0
  assert not (tmp_path / "none").exists()

from benchmarks.loop import WINDOW, bare, looped, make_spec

TINY = ["batch.rows=8", "batch.group_rows=8", "batch.accumulation=1", "model.arch.num_hidden_layers=1"]


def test_a_run_and_the_bare_step_are_timed_on_the_same_batches(tmp_path):
  spec = make_spec(tmp_path, 2 * WINDOW, TINY)
  assert spec.batch.rows == 8
  assert looped(spec, tmp_path / "run") > 0
  assert bare(spec, tmp_path / "none") > 0
  assert not (tmp_path / "none").exists()

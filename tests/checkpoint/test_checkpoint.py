"""Real checkpoints in real folders: what is kept, what is restored, and what happens to broken ones."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from amopo_jax import mesh
from amopo_jax.checkpoint import Checkpoints
from amopo_jax.state import init_state
from amopo_jax.types import InputError, RunFailure

TX = optax.adamw(1e-3)
KERNEL = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
"""Does not compress, so that the file that holds it is larger than any of the store's own."""


def state_at(step: int):
  params = {"layers": {"q": {"kernel": jnp.asarray(KERNEL + step)}}, "norm": {"scale": jnp.ones(3)}}
  return init_state(params, TX, seed=0)._replace(step=jnp.asarray(step, jnp.int32))


def target_on(sharding):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_at(0))


@pytest.fixture
def target():
  return target_on(jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def save_steps(workdir, steps, **kwargs):
  checkpoints = Checkpoints(str(workdir), **kwargs)
  for step in steps:
    checkpoints.save(state_at(step), {"stream": {"next": step}}, {"eval_loss": float(abs(step - 2))})
  checkpoints.wait()
  return checkpoints


def test_what_was_saved_comes_back_bit_for_bit(tmp_path, target):
  restored = save_steps(tmp_path, [1, 2]).restore(target)
  assert restored is not None
  assert (restored.step, restored.meta) == (2, {"stream": {"next": 2}})
  assert jax.tree.structure(restored.state) == jax.tree.structure(state_at(2))
  jax.tree.map(np.testing.assert_array_equal, restored.state, state_at(2))


def test_an_empty_workdir_restores_nothing(tmp_path, target):
  assert Checkpoints(str(tmp_path)).restore(target) is None


def test_the_newest_and_the_best_are_kept(tmp_path):
  lowest = save_steps(tmp_path, range(1, 7), keep=2, best_metric="eval_loss", best_is_highest=False)
  assert lowest.steps() == [2, 5, 6]


def test_the_best_is_known_after_a_restart(tmp_path):
  best = {"keep": 2, "best_metric": "eval_loss", "best_is_highest": False}
  for steps in (range(1, 5), range(5, 7), range(7, 8)):
    kept = save_steps(tmp_path, steps, **best)
    kept.close()
  assert kept.steps() == [2, 6, 7]


def test_a_broken_file_of_metrics_costs_the_title_of_the_best_and_nothing_else(tmp_path, target):
  best = {"keep": 2, "best_metric": "eval_loss", "best_is_highest": False}
  save_steps(tmp_path, range(1, 5), **best).close()
  (tmp_path / "checkpoints" / "2" / "metrics" / "metrics").write_text("{")
  with pytest.raises(InputError, match=r"2/metrics/metrics: broken .*; remove it"):
    Checkpoints(str(tmp_path), read_only=True)
  kept = save_steps(tmp_path, range(5, 7), **best)
  assert kept.steps() == [3, 5, 6]
  restored = kept.restore(target)
  assert restored is not None
  assert restored.step == 6


def test_without_a_best_metric_only_the_newest_are_kept(tmp_path):
  assert save_steps(tmp_path, range(1, 7), keep=2).steps() == [5, 6]


def test_a_step_that_is_there_is_left_alone(tmp_path, target):
  checkpoints = save_steps(tmp_path, [1])
  checkpoints.save(state_at(5)._replace(step=jnp.asarray(1, jnp.int32)), {"stream": {}})
  checkpoints.wait()
  restored = checkpoints.restore(target)
  assert restored is not None
  assert restored.meta == {"stream": {"next": 1}}


def test_it_restores_onto_another_mesh(tmp_path):
  save_steps(tmp_path, [3])
  grid = mesh.make_mesh(data=2, fsdp=4, tensor=1)
  target = target_on(NamedSharding(grid, PartitionSpec()))
  split = NamedSharding(grid, PartitionSpec("fsdp"))
  kernel = target.params["layers"]["q"]
  kernel["kernel"] = jax.ShapeDtypeStruct(KERNEL.shape, jnp.float32, sharding=split)
  restored = Checkpoints(str(tmp_path)).restore(target)
  assert restored is not None
  found = restored.state.params["layers"]["q"]["kernel"]
  assert found.sharding.is_equivalent_to(split, 2)
  np.testing.assert_array_equal(found, state_at(3).params["layers"]["q"]["kernel"])


def test_arrays_come_back_into_the_memory_that_the_target_names(tmp_path):
  grid = mesh.make_mesh(data=2, fsdp=4, tensor=1)
  near = NamedSharding(grid, PartitionSpec())
  far = near.with_memory_kind(mesh.HOST)
  moved = lambda state: state._replace(opt_state=jax.device_put(state.opt_state, far))
  checkpoints = Checkpoints(str(tmp_path))
  checkpoints.save(moved(state_at(3)), {"stream": {}})
  checkpoints.wait()
  for there in (far, near):  # a run may change its mind
    target = target_on(near)._replace(opt_state=target_on(there).opt_state)
    restored = Checkpoints(str(tmp_path)).restore(target)
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, restored.state, state_at(3))
    assert {x.sharding.memory_kind for x in jax.tree.leaves(restored.state.opt_state)} == {there.memory_kind}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(restored.state.params)} == {near.memory_kind}


def test_parameters_are_restored_without_the_optimizer(tmp_path, target):
  params = save_steps(tmp_path, [4]).restore_params(4, target.params)
  jax.tree.map(np.testing.assert_array_equal, params, state_at(4).params)


def truncate(path):
  for file in sorted((path / "state").rglob("d/*")):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bytes(path):
  for file in sorted((path / "state").rglob("d/*")):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def lose_metadata(path):
  for file in (path / "meta").iterdir():
    file.write_text("{")


def array_file(path):
  """The file that holds the kernel: the largest."""
  return max((path / "state").rglob("d/*"), key=lambda file: file.stat().st_size)


def truncate_one(path):
  file = array_file(path)
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def delete_one(path):
  array_file(path).unlink()


def flip_one(path):
  content = bytearray(array_file(path).read_bytes())
  middle = len(content) // 2
  content[middle : middle + 4] = bytes(byte ^ 0xFF for byte in content[middle : middle + 4])
  array_file(path).write_bytes(content)


@pytest.mark.parametrize("breaking", [truncate, flip_bytes, lose_metadata, truncate_one, delete_one, flip_one])
def test_a_broken_newest_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, target, breaking, caplog):
  save_steps(tmp_path, [1, 2]).close()
  breaking(tmp_path / "checkpoints" / "2")
  checkpoints = Checkpoints(str(tmp_path))
  restored = checkpoints.restore(target)
  assert restored is not None
  assert restored.step == 1
  jax.tree.map(np.testing.assert_array_equal, restored.state, state_at(1))
  assert (tmp_path / "unreadable" / "2").is_dir()
  assert "2 cannot be read" in caplog.text
  checkpoints.save(state_at(2), {"stream": {"next": 2}})
  checkpoints.wait()
  assert checkpoints.steps() == [1, 2]


def test_a_step_that_breaks_again_is_set_aside_under_another_name(tmp_path, target):
  for _ in range(2):
    save_steps(tmp_path, [1, 2]).close()
    flip_one(tmp_path / "checkpoints" / "2")
    restored = Checkpoints(str(tmp_path)).restore(target)
    assert restored is not None
    assert restored.step == 1
  assert sorted(path.name for path in (tmp_path / "unreadable").iterdir()) == ["2", "2-1"]


def test_where_none_can_be_read_for_another_reason_none_is_moved(tmp_path, target, monkeypatch):
  save_steps(tmp_path, [1, 2]).close()
  checkpoints = Checkpoints(str(tmp_path))
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints, "restore_step", lambda *given: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(InputError, match=r"none of the checkpoints \[1, 2\] can be read.*left there.*no room"):
      checkpoints.restore(target)
  restored = Checkpoints(str(tmp_path)).restore(target)
  assert restored is not None
  assert restored.step == 2


def test_of_several_processes_one_that_cannot_read_stops_all_and_moves_nothing(tmp_path, target, monkeypatch):
  save_steps(tmp_path, [1, 2]).close()
  flip_one(tmp_path / "checkpoints" / "2")
  checkpoints = Checkpoints(str(tmp_path))
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(checkpoints, "restore_step", lambda *given: (_ for _ in ()).throw(OSError("stale handle")))
  with pytest.raises(RunFailure, match=r"2: cannot be read .*stale handle.*move it away"):
    checkpoints.restore(target)
  assert checkpoints.steps() == [1, 2]


def test_a_read_that_fails_once_is_tried_again(tmp_path, target, monkeypatch):
  save_steps(tmp_path, [1, 2]).close()
  checkpoints, answers = Checkpoints(str(tmp_path)), [OSError("Input/output error")]
  read = checkpoints.restore_step

  def sometimes(*given):
    if answers:
      raise answers.pop()
    return read(*given)

  monkeypatch.setattr(checkpoints, "restore_step", sometimes)
  assert checkpoints.restore(target).step == 2
  assert checkpoints.steps() == [1, 2]


def test_the_first_process_says_which_steps_there_are(tmp_path, target):
  save_steps(tmp_path, [1, 2]).close()
  asked = []

  def from_first(value):
    asked.append(value)
    return [1] if value == [1, 2] else value

  checkpoints = Checkpoints(str(tmp_path), from_first=from_first)
  assert checkpoints.restore(target).step == 1
  checkpoints.save(state_at(7), {"stream": {}})
  checkpoints.close()
  assert asked == [None, [1, 2], False]


def lose_checksums(path):
  (file,) = [file for file in (path / "meta").iterdir() if "digests" in file.read_text()]
  content = json.loads(file.read_text())
  del content["digests"]
  file.write_text(json.dumps(content))


def test_a_checkpoint_of_a_version_without_checksums_is_used_with_a_warning(tmp_path, target, caplog):
  save_steps(tmp_path, [1]).close()
  lose_checksums(tmp_path / "checkpoints" / "1")
  checkpoints = Checkpoints(str(tmp_path))
  restored = checkpoints.restore(target)
  assert restored is not None
  assert (restored.step, restored.meta) == (1, {"stream": {"next": 1}})
  jax.tree.map(np.testing.assert_array_equal, restored.state, state_at(1))
  jax.tree.map(np.testing.assert_array_equal, checkpoints.restore_params(1, target.params), state_at(1).params)
  assert [record.getMessage() for record in caplog.records if record.name == "amopo_jax.checkpoint"] == 2 * [
    f"checkpoint {checkpoints.path}/1 has no checksums (saved by an older version); used unverified"
  ]


def test_all_broken_is_an_error_that_says_so(tmp_path, target):
  save_steps(tmp_path, [1]).close()
  truncate(tmp_path / "checkpoints" / "1")
  with pytest.raises(InputError, match=r"none of the checkpoints \[1\] can be read"):
    Checkpoints(str(tmp_path)).restore(target)


def test_a_reader_leaves_alone_what_a_run_is_writing(tmp_path, target):
  save_steps(tmp_path, [1]).close()
  being_written = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
  being_written.mkdir()
  found = Checkpoints(str(tmp_path), read_only=True).restore_params(1, target.params)
  jax.tree.map(np.testing.assert_array_equal, found, state_at(1).params)
  assert being_written.exists()
  Checkpoints(str(tmp_path / "none"), read_only=True)
  assert not (tmp_path / "none").exists()


def test_a_half_written_folder_of_a_killed_save_does_not_count(tmp_path, target):
  save_steps(tmp_path, [1]).close()
  pathlib.Path(tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir()
  assert Checkpoints(str(tmp_path)).latest_step() == 1

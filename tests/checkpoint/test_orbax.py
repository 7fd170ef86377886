import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from amopo_jax.checkpoint.orbax import Manager, array_handler


class Write:
  def result(self, timeout=None):
    raise OSError(28, "No space left on device")


def manager(folder, heard, handler):
  handlers = {"state": array_handler(), "meta": handler}
  return Manager(folder, failed=heard.append, item_handlers=handlers)


def save(to, step):
  to.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave({"a": jnp.arange(3)}), meta=ocp.args.JsonSave({})))


def test_a_save_that_fails_in_the_background_is_told_and_raised_to_whoever_waits(tmp_path):
  heard = []
  handler = ocp.JsonCheckpointHandler()
  write = handler.async_save

  async def with_one_more(*arguments, **options):
    return [*(await write(*arguments, **options) or ()), Write()]

  handler.async_save = with_one_more
  broken = manager(tmp_path, heard, handler)
  save(broken, 1)
  with pytest.raises(OSError, match="No space left"):
    broken.wait_until_finished()
  assert [error.errno for error in heard] == [28]


def test_a_save_that_fails_as_it_ends_is_told_too(tmp_path, monkeypatch):
  heard = []
  full = manager(tmp_path, heard, ocp.JsonCheckpointHandler())

  def no_room(self, directory):
    raise OSError(122, "Disk quota exceeded")

  monkeypatch.setattr(ocp.JsonCheckpointHandler, "finalize", no_room)
  save(full, 1)
  with pytest.raises(OSError, match="quota"):
    full.wait_until_finished()
  assert [error.errno for error in heard] == [122]


def test_a_save_that_ends_is_not_told_of(tmp_path):
  heard = []
  good = manager(tmp_path, heard, ocp.JsonCheckpointHandler())
  save(good, 1)
  good.wait_until_finished()
  assert (heard, good.all_steps()) == ([], [1])

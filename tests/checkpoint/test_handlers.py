import asyncio

import pytest

from amopo_jax.checkpoint.handlers import array_handler, telling


class Write:
  def __init__(self, error=None):
    self.error = error

  def result(self, timeout=None):
    if self.error:
      raise self.error
    return "written"


class Handler:
  def __init__(self, writes):
    self.writes = writes

  async def async_save(self, directory, args=None):
    return self.writes


def test_a_write_that_fails_is_told_where_it_fails_and_raised_to_whoever_waits():
  heard, error = [], OSError(28, "No space left on device")
  writes = asyncio.run(telling(Handler([Write(), None, Write(error)]), heard.append).async_save("folder", args=None))
  assert writes[0].result() == "written"
  assert heard == []
  with pytest.raises(OSError, match="No space left"):
    writes[1].result(timeout=3)
  assert heard == [error]


def test_a_handler_that_writes_nothing_in_the_background_stays_one():
  assert asyncio.run(telling(Handler(None), print).async_save("folder")) == []


def test_arrays_are_written_from_their_first_replica():
  assert array_handler()

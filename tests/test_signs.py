"""Signs of life, and a process 0 that answers no more."""

import os
import threading
import time

import pytest

from amopo_jax import signs


@pytest.fixture
def exits(monkeypatch):
  """Statuses of exits; a thread that has left does nothing more."""
  found, ended = [], threading.Event()

  def leave(status):
    found.append(status)
    ended.set()
    threading.Event().wait()

  monkeypatch.setattr(os, "_exit", leave)
  monkeypatch.setattr(signs, "_LOOKING_SECONDS", 0.02)
  monkeypatch.setattr(signs, "SILENT_SECONDS", 0.2)
  return found, ended


def test_a_process_that_hears_nothing_ends_with_a_line(exits, capfd):
  watch = signs.Watch()
  watch.start()
  assert exits[1].wait(5)
  assert exits[0] == [1]
  assert "process 0 has not answered" in capfd.readouterr().err


def test_a_process_that_is_answered_or_done_goes_on(exits):
  watch = signs.Watch()
  watch.start()
  for _ in range(20):
    time.sleep(0.02)
    watch.hear()
  watch.stop()
  time.sleep(0.5)
  assert exits[0] == []

"""In processes of their own: the watchdog ends the one that it lives in."""

import os
import signal
import subprocess
import sys
import time

import pytest

BEGIN = """
import threading, time
from amopo_jax.watchdog import Watchdog
"""
SILENT = """
def waits_for_what_never_comes():
  threading.Event().wait(30)
with Watchdog(minutes=0.05) as watchdog:
  print("begun", flush=True)
  waits_for_what_never_comes()
"""
BEATING = """
with Watchdog(minutes=0.05) as watchdog:
  print("begun", flush=True)
  for _ in range(12):
    time.sleep(0.5)
    watchdog.beat()
time.sleep(4)
print("done")
"""
SWITCHED_OFF = """
with Watchdog(minutes=0) as watchdog:
  print("begun", flush=True)
  time.sleep(4)
print("done")
"""


def start(text):
  process = subprocess.Popen(
    [sys.executable, "-c", BEGIN + text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert process.stdout is not None
  assert process.stdout.readline() == "begun\n"
  return process


def test_a_process_in_which_nothing_moves_ends_and_shows_where_it_stands():
  process, begun = start(SILENT), time.monotonic()
  _, told = process.communicate(timeout=25)
  assert process.returncode == 1
  assert 2 < time.monotonic() - begun < 20
  assert "in waits_for_what_never_comes" in told
  assert "process 0: nothing has moved for 0.05 minutes (config.train.hang_minutes)" in told.splitlines()[-1]


@pytest.mark.parametrize("text", [BEATING, SWITCHED_OFF])
def test_a_process_that_moves_or_may_wait_goes_on(text):
  process = start(text)
  said, told = process.communicate(timeout=25)
  assert (process.returncode, said, told) == (0, "done\n", "")


def test_a_suspended_process_has_its_whole_time_again():
  process = start(BEATING)
  os.kill(process.pid, signal.SIGSTOP)
  time.sleep(5)
  os.kill(process.pid, signal.SIGCONT)
  said, _ = process.communicate(timeout=25)
  assert (process.returncode, said) == (0, "done\n")

import os
import signal

import pytest

from amopo_jax import stopping
from amopo_jax.stopping import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_and_the_old_handler_comes_back(number):
  before = signal.getsignal(number)
  with stop_on_signals() as stop:
    assert not stop
    os.kill(os.getpid(), number)
    assert stop
    assert stop.signal_name == signal.Signals(number).name
  assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_at_once():
  with stop_on_signals():
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)


def test_what_went_wrong_is_told_once_in_a_run(capsys):
  stopping.forget_what_was_told()
  stopping.tell("amopo train: no such file")
  stopping.tell("amopo train: no such file", "process 1 stopped: ")
  stopping.tell("amopo train: another", "process 1 stopped: ")
  assert capsys.readouterr().err == "amopo train: no such file\nprocess 1 stopped: amopo train: another\n"
  stopping.forget_what_was_told()
  stopping.tell("amopo train: no such file")
  assert capsys.readouterr().err == "amopo train: no such file\n"

"""Memory of the compiler goes back to the system, seen from the process itself."""

import subprocess
import sys

PROGRAM = """
import ctypes, sys, jax
from amopo_jax import host
calls = []
host._c_library = lambda: type("Library", (), {"malloc_trim": staticmethod(calls.append)})
for _ in range(2):
  host.give_back_after_compiling()
assert not calls
jax.jit(lambda x: x + 1)(1.0)
print(len(calls))
"""


def test_trims_once_after_each_compilation_and_is_set_up_once():
  done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "1"


def test_without_glibc_nothing_happens():
  program = PROGRAM.replace('{"malloc_trim": staticmethod(calls.append)}', "{}")
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "0"

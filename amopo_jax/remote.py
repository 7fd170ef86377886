"""Folders of libraries that know only the local disk, in workdirs that may be gs://: copied there and back."""

import atexit
import fnmatch
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from etils import epath

from amopo_jax.types import SMALL_FILES


def has_parent(path: epath.Path) -> bool:
  """Whether a file can be written at a path: its folder is there, or needs not be, as in an object store."""
  return "://" in str(path) or path.parent.exists()


def write_folder(path: str, write: Callable[[Path], None]) -> None:
  """Has a library write files into a folder, which may be remote.

  Args:
    path: of the folder, made if missing.
    write: writes files, without subfolders, into the local folder it is given.
  """
  folder = epath.Path(path)
  folder.mkdir(parents=True, exist_ok=True)
  if "://" not in path:
    write(Path(path))
    return
  with tempfile.TemporaryDirectory() as local:
    write(Path(local))
    for file in Path(local).iterdir():
      (folder / file.name).write_bytes(file.read_bytes())


@functools.cache
def local_folder(folder: str) -> str:
  """A local folder with the files of one that may be remote: itself, or a copy that lives as long as the process.

  Of a model, the copy has no weights, in whatever format: those are read where they are.
  """
  if "://" not in folder:
    return folder
  local = tempfile.mkdtemp(prefix="amopo-")
  atexit.register(shutil.rmtree, local, ignore_errors=True)
  for file in epath.Path(folder).iterdir():
    if any(fnmatch.fnmatch(file.name, pattern) for pattern in SMALL_FILES) and not file.is_dir():
      (Path(local) / file.name).write_bytes(file.read_bytes())
  return local

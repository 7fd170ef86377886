"""What a figure needs to be believed, besides its date and command: the code and the machine that made it."""

import hashlib
import platform
import subprocess
from pathlib import Path


def commit() -> str:
  """Of the checkout that this is, with " with changes" where files that git follows have some; "" where it is none."""
  root = Path(__file__).parent.parent
  git = lambda *words: (
    subprocess.run(["git", "--no-optional-locks", *words], capture_output=True, text=True, check=False, cwd=root).stdout
  )
  try:
    top = git("rev-parse", "--show-toplevel").strip()
    found, changes = git("rev-parse", "HEAD").strip(), git("status", "--porcelain", "--untracked-files=no").strip()
  except OSError:  # no git
    return ""
  if not top or Path(top).resolve() != root.resolve():  # an environment inside another project's checkout
    return ""
  return f"{found} with changes" if found and changes else found


def source_digest() -> str:
  """Of the package's own modules: alike wherever they are, in a checkout or not."""
  root, digest = Path(__file__).parent, hashlib.sha256()
  for file in sorted(root.rglob("*.py")):
    digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
  return digest.hexdigest()[:12]


def processor() -> str:
  """As the system calls it."""
  told = Path("/proc/cpuinfo")
  lines = told.read_text().splitlines() if told.exists() else []
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.processor() or platform.machine()

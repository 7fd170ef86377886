"""From a path to local files, without a network: memory:// stands for gs://, a function for the hub."""

import gzip

import fsspec
import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from amopo_jax.data.fetch import HUB_SETS, hub_set, local_files
from amopo_jax.types import InputError


@pytest.fixture
def bucket():
  """A remote file system that is empty again afterwards."""
  system = fsspec.filesystem("memory")
  yield system
  system.store.clear()
  system.pseudo_dirs[:] = [""]


@pytest.fixture
def hub(tmp_path, monkeypatch):
  """What was asked of the hub; it has every file but those named "missing"."""
  asked = []

  def download(repository, file, *, repo_type, revision):
    asked.append((repository, file, repo_type, revision))
    if "missing" in file:
      raise LocalEntryNotFoundError("Cannot find the requested files.\nSecond line.")
    path = tmp_path / file.replace("/", "_")
    path.write_bytes(gzip.compress(b"{}\n") if file.endswith(".gz") else b"{}\n")
    return str(path)

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
  return asked


def names(files) -> list[str]:
  return [file.name for file in files]


def test_files_globs_and_lists_keep_their_order(tmp_path, monkeypatch):
  for name in ("b.jsonl", "a.jsonl", "c.json"):
    (tmp_path / name).write_text(name)
  monkeypatch.chdir(tmp_path)
  assert names(local_files("c.json, *.jsonl")) == ["c.json", "a.jsonl", "b.jsonl"]
  assert local_files("c.json")[0].path.read_text() == "c.json"


@pytest.mark.parametrize(
  ("path", "reason"),
  [
    ("nothing.jsonl", "nothing.jsonl: no such file"),
    ("no*.jsonl", r"no\*.jsonl: no such file"),
    (".", r"\.: a folder, not a file"),
    ("x.parquet", "x.parquet: this kind of file is not read"),
    ("x.csv.gz", "x.csv.gz: this kind of file is not read"),
    ("https://example.org/x.jsonl", "web addresses are not read"),
    ("elsewhere://x.jsonl", "elsewhere://x.jsonl: cannot be read"),
    ("memory://bucket/none.jsonl", "memory://bucket/none.jsonl: cannot be read"),
    ("memory://bucket/*.jsonl", "no file matches"),
    ("nvidia/HelpSteer2:test", "no split 'test'; the splits are train, validation"),
    ("hf://datasets/org/name", "not an address of a data file"),
    ("hf://models/org/name/x.jsonl", "not an address of a data file"),
  ],
)
def test_what_cannot_be_had_is_refused_in_one_line(tmp_path, monkeypatch, path, reason):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=reason) as caught:
    local_files(path, tmp_path / "cache")
  assert "\n" not in str(caught.value)


def test_a_remote_file_is_copied_once_and_again_when_it_changes(tmp_path, bucket):
  bucket.pipe_file("/bucket/a.jsonl", b"one")
  (first,) = local_files("memory://bucket/a.jsonl", tmp_path)
  assert (first.path.read_bytes(), first.name) == (b"one", "memory:///bucket/a.jsonl")
  stamp = first.path.stat().st_mtime_ns
  assert local_files("memory://bucket/a.jsonl", tmp_path) == [first]
  assert first.path.stat().st_mtime_ns == stamp
  bucket.pipe_file("/bucket/a.jsonl", b"two")
  assert local_files("memory://bucket/a.jsonl", tmp_path)[0].path.read_bytes() == b"two"


def test_a_remote_glob(tmp_path, bucket):
  bucket.pipe_file("/bucket/b.jsonl", b"2")
  bucket.pipe_file("/bucket/a.jsonl", b"1")
  files = local_files("memory://bucket/*.jsonl", tmp_path)
  assert [file.path.read_bytes() for file in files] == [b"1", b"2"]


def test_an_interrupted_copy_leaves_nothing_behind(tmp_path, bucket, monkeypatch):
  bucket.pipe_file("/bucket/a.jsonl", b"one")

  def half_way(_, path, **options):
    with open(path, "wb") as file:
      file.write(b"o")
    raise OSError("connection lost")

  with monkeypatch.context() as patch:
    patch.setattr(type(bucket), "get_file", lambda self, name, path: half_way(name, path))
    with pytest.raises(InputError, match=r"a.jsonl: cannot be read \(connection lost\)"):
      local_files("memory://bucket/a.jsonl", tmp_path)
  assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
  assert local_files("memory://bucket/a.jsonl", tmp_path)[0].path.read_bytes() == b"one"


def test_gzip_is_unpacked_and_keeps_its_name(tmp_path):
  packed = tmp_path / "a.jsonl.gz"
  packed.write_bytes(gzip.compress(b"rows"))
  (file,) = local_files(str(packed), tmp_path / "cache")
  assert (file.path.read_bytes(), file.name) == (b"rows", str(packed))
  packed.write_bytes(gzip.compress(b"rows")[:-9])
  with pytest.raises(InputError, match=r"a.jsonl.gz: broken gzip file"):
    local_files(str(packed), tmp_path / "cache")


def test_hub_addresses_with_and_without_revision(hub, tmp_path):
  (file,) = local_files("hf://datasets/org/name@v2/data/train.jsonl", tmp_path / "cache")
  assert hub == [("org/name", "data/train.jsonl", "dataset", "v2")]
  assert file.name == "hf://datasets/org/name@v2/data/train.jsonl"
  local_files("hf://datasets/org/name/train.jsonl", tmp_path / "cache")
  assert hub[1] == ("org/name", "train.jsonl", "dataset", None)


def test_known_hub_names_stand_for_their_files(hub, tmp_path):
  assert names(local_files("nvidia/HelpSteer2", tmp_path / "cache")) == [
    "hf://datasets/nvidia/HelpSteer2/train.jsonl.gz"
  ]
  local_files("nvidia/HelpSteer2:validation", tmp_path / "cache")
  assert hub[-1] == ("nvidia/HelpSteer2", "validation.jsonl.gz", "dataset", None)
  assert len(local_files("openbmb/UltraFeedback", tmp_path / "cache")) == 6
  assert hub_set("openbmb/UltraFeedback:train") is HUB_SETS["openbmb/UltraFeedback"]
  assert hub_set("openbmb/elsewhere") is None


def test_without_a_network_the_hub_says_so_in_one_line(hub, tmp_path):
  with pytest.raises(InputError, match="not in the local cache, and the hub does not give it") as caught:
    local_files("hf://datasets/org/name/missing.jsonl", tmp_path)
  assert "\n" not in str(caught.value)


def test_copies_go_below_hf_home_unless_told_otherwise(tmp_path, monkeypatch):
  monkeypatch.setattr("amopo_jax.data.fetch.constants.HF_HOME", str(tmp_path / "home"))
  packed = tmp_path / "a.jsonl.gz"
  packed.write_bytes(gzip.compress(b"rows"))
  assert (tmp_path / "home" / "amopo_jax") in local_files(str(packed))[0].path.parents

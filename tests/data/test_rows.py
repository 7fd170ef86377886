"""Rows of files by number: JSON Lines and JSON arrays give the same, whatever the chunks and the blanks."""

import concurrent.futures
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.data import rows
from amopo_jax.data.rows import FileRows
from amopo_jax.types import InputError

VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.text(),
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
  max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=6)


def read(path, content: bytes) -> list:
  path.write_bytes(content)
  opened = FileRows(path, "set")
  return [opened[number] for number in range(len(opened))]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  return tmp_path_factory.mktemp("rows") / "file"


@given(objects=OBJECTS, indent=st.sampled_from([None, 1]), chunk=st.integers(1, 9), ascii=st.booleans())
@settings(max_examples=60, deadline=None)
def test_arrays_and_lines_give_the_objects_back_for_every_chunk_size(path, objects, indent, chunk, ascii):
  array = json.dumps(objects, indent=indent, ensure_ascii=ascii).encode()
  lines = b"".join(json.dumps(item, ensure_ascii=ascii).encode() + b"\n" for item in objects)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(rows, "_CHUNK", chunk)
    assert read(path, array) == objects
  assert read(path, lines) == objects


def test_blank_lines_and_a_missing_last_newline_do_not_count(path):
  assert read(path, b'\n{"a": 1}\r\n  \r\n{"a": 2}') == [{"a": 1}, {"a": 2}]
  assert [FileRows(path, "set").origin(number) for number in (0, 1)] == ["set:2", "set:4"]


def test_a_byte_order_mark_is_no_part_of_the_data(path):
  assert read(path, b'\xef\xbb\xbf{"a": 1}\n') == [{"a": 1}]
  assert read(path, b'\xef\xbb\xbf[{"a": 1}]') == [{"a": 1}]
  assert read(path, b'\xef\xbb\xbf\n[ {"a": 1} , {"a": 2} ]\n') == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_element_is_placed_by_its_first_line(path, monkeypatch, chunk):
  monkeypatch.setattr(rows, "_CHUNK", chunk)
  path.write_bytes(json.dumps([{"a": "x\n]"}, {"a": 2}, {"a": 3}], indent=2).encode())
  opened = FileRows(path, "set")
  assert [opened.origin(number) for number in range(3)] == ["set:2", "set:5", "set:8"]


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize(
  ("content", "reason"),
  [
    (b'{"a": 1}\n{"a": \n', "set:2: broken JSON (Expecting value, character 7)"),
    (b'{"a": 1}\n[1]\n', "set:2: the row is a list; it must be an object"),
    (b'{"a": "\xff"}\n', "set:1: not UTF-8"),
    (b'{"a": {"b": 1, "c": 2, "b": 3}}\n', "set:1: the key 'b' stands twice in an object; keep one of the two"),
    (b'[{"a": 1},\n{"a": ', "set:2: broken JSON (the element that begins here does not end)"),
    (b'[{"a": 1},\n{"a": "}]', "set:2: broken JSON (the element that begins here does not end)"),
    (b'[\n"a"]', "set:2: broken JSON (the array holds something other than objects)"),
    (b"[\n[1]]", "set:2: broken JSON (the array holds something other than objects)"),
    (b"[1,\n{}]", "set:1: broken JSON (the array holds something other than objects); every element must be one"),
    (b"[{},\nnull]", "set:2: broken JSON (the array holds something other than objects)"),
    (b"[{},\n\\]", "set:2: broken JSON (the array holds something other than objects)"),
    (b"[{},\n]", "set:2: broken JSON (the array holds something other than objects)"),
    (b"[{}\n{}]", "set:2: broken JSON (no comma after an object of the array); put one"),
    (b"[{}\n}", "set:2: broken JSON (no comma after an object of the array)"),
    (b"[{}]\n{}", "set:2: broken JSON (something follows the end of the array); a file holds one"),
    (b"[]\n\nend", "set:3: broken JSON (something follows the end of the array)"),
    (b"[{}]]", "set:1: broken JSON (something follows the end of the array)"),
    (b'[{"a" 1}]', "set:1: broken JSON (Expecting ':' delimiter"),
  ],
)
def test_broken_files_are_refused_with_their_line(path, monkeypatch, content, reason, chunk):
  monkeypatch.setattr(rows, "_CHUNK", chunk)
  with pytest.raises(InputError) as caught:
    read(path, content)
  assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
  ("value", "reason"),
  [
    pytest.param(b"9" * 5000, "set:2: an integer has too many digits; correct it", id="digits"),
    pytest.param(b"[" * 200_000 + b"]" * 200_000, "set:2: lists or objects are nested too deeply", id="levels"),
  ],
)
def test_what_python_does_not_decode_is_refused_with_its_line(path, value, reason):
  with pytest.raises(InputError, match=f"^{reason}"):
    read(path, b'{}\n{"a": ' + value + b"}\n")


def test_a_missing_file_is_refused(tmp_path):
  with pytest.raises(InputError, match=r"set: cannot be read \(No such file"):
    FileRows(tmp_path / "nothing.jsonl", "set")


def test_rows_survive_pickling_and_are_read_from_many_threads(path):
  path.write_bytes(b"".join(json.dumps({"number": number}).encode() + b"\n" for number in range(200)))
  opened = FileRows(path, "set")
  assert opened[7] == {"number": 7}
  again = pickle.loads(pickle.dumps(opened))
  del opened  # and with it its handle
  order = np.random.default_rng(0).integers(0, 200, 2000).tolist()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert [row["number"] for row in pool.map(again.__getitem__, order)] == order


@pytest.mark.parametrize("wrap", [(b"", b"\n", b""), (b"[", b",\n", b"{}]")])
def test_content_is_not_held_in_memory(path, wrap):
  begin, between, end = wrap
  item = json.dumps({"text": "x" * 200_000}).encode()
  path.write_bytes(begin + (item + between) * 100 + end)
  tracemalloc.start()
  opened = FileRows(path, "set")
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert len(opened) >= 100
  assert peak < 6 * 2**20  # of 20 MB

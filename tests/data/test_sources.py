"""Record sources: lengths, places, several files, bad records, worker processes."""

import json
import pickle

import pytest

from amopo_jax.data.sources import open_source
from amopo_jax.types import InputError


def write_native(path, *prompts: str, bad=()) -> str:
  """A native file; the records numbered in `bad` have an empty response."""
  rows = [
    {
      "prompt": prompt,
      "responses": [{"content": "yes"}, {"content": " " if number in bad else "no"}],
      "chosen": 0,
    }
    for number, prompt in enumerate(prompts)
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def prompts(source) -> list[str]:
  return [source[number].prompt[-1].content for number in range(len(source))]


def test_several_files_are_one_source_with_their_own_origins(tmp_path):
  first = write_native(tmp_path / "a.jsonl", "a", "b")
  second = write_native(tmp_path / "b.jsonl", "c")
  source = open_source(f"{first},{second}", format="native")
  assert prompts(source) == ["a", "b", "c"]
  assert [source.origin(number) for number in range(3)] == [f"{first}:1", f"{first}:2", f"{second}:1"]
  assert [source[number].origin for number in range(3)] == [source.origin(number) for number in range(3)]


def test_a_record_of_two_rows_is_placed_at_its_first(fixtures):
  source = open_source(fixtures / "records" / "helpsteer2.jsonl", format="helpsteer2")
  assert len(source) == 4
  assert source.origin(2).endswith("helpsteer2.jsonl:5")


@pytest.mark.parametrize("number", [3, 100])
def test_numbers_beyond_the_end_are_index_errors(tmp_path, number):
  source = open_source(write_native(tmp_path / "a.jsonl", "a", "b", "c"), format="native")
  with pytest.raises(IndexError):
    source[number]


def test_bad_records_raise_when_they_are_read(tmp_path):
  path = write_native(tmp_path / "a.jsonl", "a", "b", bad=[1])
  source = open_source(path, format="native")
  assert (len(source), source.skipped) == (2, 0)
  with pytest.raises(InputError, match=rf"^{path}:2: response 1 is empty"):
    source[1]


def test_bad_records_are_left_out_and_counted_if_so_told(tmp_path):
  path = write_native(tmp_path / "a.jsonl", *"abcdef", bad=[1, 4])
  with open(path, "a") as file:
    file.write("{broken\n")
  source = open_source(path, format="native", on_error="skip")
  assert prompts(source) == ["a", "c", "d", "f"]
  assert source.origin(3) == f"{path}:6"
  assert source.skipped == 3
  assert [(count, example.partition(": ")[0]) for count, example in source.skip_reasons] == [
    (2, f"{path}:2"),
    (1, f"{path}:7"),
  ]


def test_a_source_without_records_is_refused(tmp_path):
  empty = tmp_path / "empty.jsonl"
  empty.write_text("\n")
  with pytest.raises(InputError, match=r"empty.jsonl: no records; is the file empty"):
    open_source(empty, format="native")
  path = write_native(tmp_path / "a.jsonl", "a", bad=[0])
  why = r"a\.jsonl: no record without an error: 1 left out, 1 of them as in .*a\.jsonl:1: "
  with pytest.raises(InputError, match=why):
    open_source(path, format="native", on_error="skip")


def test_a_file_with_an_odd_row_is_refused_even_if_the_next_one_is_odd_too(tmp_path):
  row = json.dumps({"prompt": "x", "response": "y", "tone": 1}) + "\n"
  for name in ("a.jsonl", "b.jsonl"):
    (tmp_path / name).write_text(row)
  with pytest.raises(InputError, match=r"a.jsonl: 1 rows, but the format takes 2 per record"):
    open_source(tmp_path / "*.jsonl", format="helpsteer2")


def test_a_source_survives_pickling(tmp_path):
  source = open_source(write_native(tmp_path / "a.jsonl", *"abc", bad=[0]), format="native", on_error="skip")
  assert prompts(pickle.loads(pickle.dumps(source))) == ["b", "c"]


@pytest.mark.parametrize(
  ("options", "reason"),
  [
    ({"format": "helpsteer"}, "format: unknown name 'helpsteer'; choose one of native,"),
    ({"format": "native", "on_error": "ignore"}, "on_error: unknown value 'ignore'"),
    ({"format": "auto"}, "a.jsonl: its format is not known"),
  ],
)
def test_unknown_options_are_refused(tmp_path, options, reason):
  path = write_native(tmp_path / "a.jsonl", "a")
  with pytest.raises(InputError, match=reason):
    open_source(path, **options)


def test_a_hub_name_implies_its_format(fixtures, monkeypatch):
  path = str(fixtures / "records" / "ultrafeedback.jsonl")
  monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names, **options: path)
  source = open_source("openbmb/UltraFeedback", format="auto")
  assert len(source) == 6 * 3
  assert len(source[0].responses) == 4

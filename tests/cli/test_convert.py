import json

from amopo_jax.data.sources import open_source

DIALOGUE = {"source": "hello\nhi , how are you ?", "context": "a fact", "scores": {"natural": 3}}


def test_usr_dialogues_become_native_records(amopo, tmp_path):
  data, out = tmp_path / "usr.json", tmp_path / "train.jsonl"
  data.write_text(json.dumps([DIALOGUE | {"system_output": text} for text in ("fine", "good , you ?")]))
  assert amopo("convert", f"--data={data}", f"--out={out}") == (0, f"{out}: 1 records\n", "")
  record = open_source(str(out), format="native")[0]
  assert [response.content for response in record.responses] == ["fine", "good , you ?"]
  assert amopo("convert", f"--data={data}", f"--out={out}")[2] == (
    f"amopo convert: {out}: exists already; name another file\n"
  )


def test_an_unknown_format_is_refused(amopo, tmp_path):
  status, _, err = amopo("convert", "--format=csv", f"--data={tmp_path}/x", f"--out={tmp_path}/y")
  assert status == 2
  assert err.startswith("amopo convert: format: unknown name 'csv'; choose one of usr, native")

"""YAML text to plain Python: YAML 1.2 words, places, what is refused, with libyaml and with the parser in Python."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from miniwin.specs import UserError, load_spec, shipped_specs, yaml_document
from miniwin.specs.yaml_document import DEEPEST, MOST_VALUES, Document
from miniwin.specs.yaml_file import MOST_BYTES


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both of PyYAML's parsers: a machine without libyaml reads the same."""
    if request.param == "python":
        fields = {"yaml_implicit_resolvers": {}, "DEFAULT_SCALAR_TAG": yaml_document._IMPLICIT}
        monkeypatch.setattr(yaml_document, "_Loader", type("_Loader", (yaml.SafeLoader,), fields))
    return request.param


def read(text: str) -> Any:
    return Document(text, "t").data


def message(text: str) -> str:
    with pytest.raises(UserError) as error:
        Document(text, "t")
    return str(error.value)


@pytest.mark.parametrize(
    "word, value",
    [
        ("1", 1),
        ("-1", -1),
        ("+1", 1),
        ("08", 8),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1e-3", 0.001),
        ("4e6", 4e6),
        ("1E+2", 100.0),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e1", -5.0),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("+.Inf", math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!int '1'", 1),
        ("!!float 1", 1),
        ("'<<'", "<<"),
        ("=", "="),
    ],
)
def test_words_mean_what_yaml_1_2_says(parser: str, word: str, value: Any) -> None:
    got = read(f"a: {word}\n")["a"]
    assert got == value and type(got) is type(value)


def test_not_a_number_is_read(parser: str) -> None:
    assert math.isnan(read("a: .NaN\n")["a"])


def test_block_text_is_text(parser: str) -> None:
    assert read("a: |\n  1\nb: >-\n  null\n") == {"a": "1\n", "b": "null"}


def test_merges_give_what_yaml_says(parser: str) -> None:
    text = "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\nx: {b: 3, <<: [*one, *two]}\ny: {<<: *two, d: 4}\n"
    data = read(text)
    assert data["x"] == {"a": 1, "b": 3, "c": 2}
    assert data["y"] == {"b": 2, "c": 2, "d": 4}


def test_an_alias_is_a_copy(parser: str) -> None:
    data = read("one: &one {a: {b: 1}}\ntwo: *one\nthree: {<<: *one}\n")
    data["one"]["a"]["b"] = 2
    assert data["two"] == data["three"] == {"a": {"b": 1}}


PLACES = """\
# a comment
a: 1
b: {c: two, d: [x, {e: 5}], "é😀": 6}
f: &f
  g: 7
h: {<<: *f, i: 8}
j: *f
k:
"""


@pytest.mark.parametrize(
    "path, value, key",
    [
        ((), (2, 1), (2, 1)),
        (("a",), (2, 4), (2, 1)),
        (("b",), (3, 4), (3, 1)),
        (("b", "c"), (3, 8), (3, 5)),
        (("b", "d", 0), (3, 17), (3, 17)),
        (("b", "d", 1, "e"), (3, 24), (3, 21)),
        (("b", "é😀"), (3, 35), (3, 29)),
        (("h", "g"), (5, 6), (5, 3)),
        (("h", "i"), (6, 16), (6, 13)),
        (("j",), (4, 4), (7, 1)),
        (("k",), (8, 1), (8, 1)),
        (("b", "missing"), (3, 4), (3, 4)),
        (("h", "g", "deeper"), (5, 6), (5, 6)),
    ],
)
def test_places_are_those_of_the_text(parser: str, path: tuple[Any, ...], value: Any, key: Any) -> None:
    document = Document(PLACES, "t")
    # libyaml's value of an anchored block begins at the anchor, the Python parser's too.
    assert document.mark(path) == value
    assert document.mark(path, key=True) == key
    assert document.place(path) == f"t:{value[0]}:{value[1]}"


def test_a_block_below_its_key_is_pointed_at_by_the_key(parser: str) -> None:
    document = Document("a:\n  b:\n    c: 1\n", "t")
    assert document.mark(("a", "b")) == (2, 3)
    assert document.mark(("a", "b", "missing")) == (2, 3)
    assert document.mark(("a", "b", "c")) == (3, 8)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a: 1\na: 2\n", "t:2:1: 'a' is given twice in the same mapping; remove one"),
        ("b: {a: 1, 'a': 2}\n", "t:1:11: 'a' is given twice in the same mapping; remove one"),
        ("1: 2\n", "t:1:1: a key must be text; got 1: put it in quotes"),
        ("a: {null: 2}\n", "t:1:5: a key must be text; got null: put it in quotes"),
        ("? [a]\n: 1\n", "t:1:3: a key must be a plain word; got a list or mapping"),
        ("? {a: 1}\n: 1\n", "t:1:3: a key must be a plain word; got a list or mapping"),
        ("a: {<<: 3}\n", "t:1:9: '<<' merges a mapping, such as <<: *layer"),
        ("a: {<<: }\n", "t:1:5: '<<' merges a mapping, such as <<: *layer"),
        ("a: {<<: [{b: 1}, c]}\n", "t:1:18: '<<' merges a mapping, such as <<: *layer"),
        ("a: &a [*a]\n", "t:1:4: this anchor contains an alias to itself; a spec must be finite"),
        ("a: &a {<<: *a}\n", "t:1:4: this anchor contains an alias to itself; a spec must be finite"),
        (
            "a: !!python/name:os.system x\n",
            "t:1:4: the tag !!python/name:os.system is not allowed; a spec is made of plain values",
        ),
        ("a: !mine [1]\n", "t:1:4: the tag !mine is not allowed; a spec is made of plain values"),
        ("a: !!set {b}\n", "t:1:4: the tag !!set is not allowed; a spec is made of plain values"),
        ("a: !!int b\n", "t:1:4: 'b' is not !!int"),
        ("a: {<<: !mine {b: 1}}\n", "t:1:9: the tag !mine is not allowed; a spec is made of plain values"),
        ("a: 1\n---\nb: 2\n", "t:2:1: not valid YAML: a second document begins here; a spec is one document"),
        ("a: *lyer\n", "t:1:4: not valid YAML: no anchor is called 'lyer' before this line"),
        ("layer: &layer 1\na: *lyer\n", "t:2:4: not valid YAML: no anchor is called 'lyer'; did you mean 'layer'?"),
        ("a: b\0\n", "t:1:5: not valid YAML: the control character U+0000; is this a text file?"),
        ("a: 1\nb:\x1b\n", "t:2:3: not valid YAML: the control character U+001B; is this a text file?"),
    ],
)
def test_what_is_refused(parser: str, text: str, expected: str) -> None:
    assert message(text) == expected


@pytest.mark.parametrize(
    "text", ["a: {b: 1\n", "a: 'b\n", "a: b: c\n", "%WHAT\n", "a: @b\n", "- a\nb: 1\n", "\tb: 1\n"]
)
def test_what_cannot_be_parsed_says_where(parser: str, text: str) -> None:
    said = message(text)
    assert said.startswith("t:") and ": not valid YAML: " in said and "\n" not in said


def test_everything_that_is_wrong_is_said_in_order() -> None:
    text = "a: {b: !x 1, b: 2}\nc: {1: 2}\na: 3\n"
    assert message(text).split("\n") == [
        "t:1:8: the tag !x is not allowed; a spec is made of plain values",
        "t:1:14: 'b' is given twice in the same mapping; remove one",
        "t:2:5: a key must be text; got 1: put it in quotes",
        "t:3:1: 'a' is given twice in the same mapping; remove one",
    ]


def test_a_mistake_in_an_anchor_is_said_once() -> None:
    assert message("a: &a {b: 1, b: 2}\nc: *a\nd: {<<: *a}\n").count("\n") == 0


def test_at_most_twenty_mistakes_are_listed() -> None:
    said = message("".join(f"{number}: 1\n" for number in range(25))).split("\n")
    assert len(said) == 21 and said[-1] == "... and 5 more"


@pytest.mark.parametrize("opener, closer", [("[", "]"), ("{a: ", "}")])
def test_nesting_ends_somewhere(parser: str, opener: str, closer: str) -> None:
    def nested(depth: int) -> str:
        return "a: " + opener * depth + "1" + closer * depth + "\n"

    assert isinstance(read(nested(DEEPEST - 1))["a"], (list, dict))
    column = 4 + len(opener) * (DEEPEST - 1)
    assert message(nested(DEEPEST)) == f"t:1:{column}: nested deeper than 100 levels; is this the right file?"


def test_deep_nesting_does_not_recurse() -> None:
    for text in ("[" * 60_000, "- " * 60_000, "{a: " * 30_000, "? " * 60_000):
        assert "nested deeper than 100 levels" in message(text)
    blocks = "".join(" " * depth + "k:\n" for depth in range(400))
    assert message(blocks) == "t:101:101: nested deeper than 100 levels; is this the right file?"


def test_brackets_in_text_and_comments_are_no_nesting() -> None:
    assert read("# " + "[" * 500 + "\na: '" + "{" * 500 + "'\n") == {"a": "{" * 500}


def test_aliases_nest_as_what_they_stand_for() -> None:
    chain = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}, k: [*a{i - 1}]}}\n" for i in range(1, 12))
    assert read(chain)["a11"]["x"] == 1
    long = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 120))
    assert message(long) == "t:101:7: its aliases nest deeper than 100 levels; write a flatter spec"
    merges = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}}}\n" for i in range(1, 120))
    assert "its aliases nest deeper than 100 levels" in message(merges)


def test_alias_bombs_are_refused(parser: str) -> None:
    lists = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    lists += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 7))  # 10 million
    assert message(lists) == f"t:5:5: its aliases stand for more than {MOST_VALUES} values; write a smaller spec"
    maps = "a0: &a0 {x: 1}\n"
    maps += "".join(f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}\n" for i in range(1, 8))
    assert "its aliases stand for more than" in message(maps)
    keys = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 50)}]}}\n" for i in range(1, 6)
    )
    assert "its aliases stand for more than" in message(keys)


def test_too_many_values_are_refused() -> None:
    line = MOST_VALUES - 1
    assert (
        message("- a\n" * (MOST_VALUES + 5))
        == f"t:{line + 1}:3: more than {MOST_VALUES} values; is this the right file?"
    )


@pytest.mark.parametrize(
    "word", ["9" * 19, "-" + "9" * 30, "9" * 5000, "0x" + "f" * 17, "0x" + "f" * 9999, "0o7" + "7" * 30]
)
def test_numbers_that_nothing_counts_with_are_refused(word: str) -> None:
    said = message(f"a: {word}\n")
    assert said.startswith(f"t:1:4: the number {word[:19]}") and len(said) < 200
    assert said.endswith("is too large; whole numbers go up to 9223372036854775807")


def test_the_largest_number_is_read() -> None:
    assert read(f"a: {2**63 - 1}\n")["a"] == 2**63 - 1


# -- files


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_spec(path)
    return str(error.value)


def test_a_folder(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path}: this is a folder; expected a YAML file"
    (tmp_path / "model.yaml").touch()
    assert refused(tmp_path) == f"{tmp_path}: this is a folder; expected a YAML file, such as {tmp_path}/model.yaml"
    (tmp_path / "x.yaml").mkdir()
    assert "this is a folder" in refused(tmp_path / "x.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "m.yaml") == f"{tmp_path}/m.yaml: there is no such file"
    (tmp_path / "model.yaml").touch()
    assert refused(tmp_path / "modle.yaml").endswith(f"there is no such file; did you mean '{tmp_path}/model.yaml'?")
    assert refused(tmp_path / "no" / "m.yaml").endswith(f"there is no such file: {tmp_path}/no is no folder")


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    assert "cannot be read: File name too long" in refused(tmp_path / ("x" * 300 + ".yaml"))


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.yaml")
    assert refused(tmp_path / "m.yaml").endswith("this is not a regular file; expected a YAML file")


@pytest.mark.parametrize(
    "raw, expected",
    [
        (b"", ":1:1: the file is empty; expected a mapping that begins with `kind: model`, train, search or suite"),
        (
            b"# nothing\n",
            ":1:1: the file is empty; expected a mapping that begins with `kind: model`, train, search or suite",
        ),
        (
            b"kind: model\nname: \xff\n",
            ":2:7: byte 0xff is not UTF-8 text; save the file as UTF-8, if it is text at all",
        ),
        (
            b"\xef\xbb\xbfa: \xc3\xa9\xff\n",
            ":1:5: byte 0xff is not UTF-8 text; save the file as UTF-8, if it is text at all",
        ),
        ("kind: model\n".encode("utf-16"), ":1:1: byte 0xff is not UTF-8 text; the file is UTF-16; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n", ":1:1: byte 0x89 is not UTF-8 text; save the file as UTF-8, if it is text at all"),
        (b"\x7fELF\x02\x01", ":1:1: not valid YAML: the control character U+007F; is this a text file?"),
        (
            b"#" * (MOST_BYTES + 1),
            f":1:1: got {MOST_BYTES + 1} bytes; a spec has at most {MOST_BYTES}. Is this the right file?",
        ),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, raw: bytes, expected: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(raw)
    assert refused(path) == f"{path}{expected}"


@pytest.mark.parametrize("change", [lambda raw: b"\xef\xbb\xbf" + raw, lambda raw: raw.replace(b"\n", b"\r\n")])
def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path, change: Any) -> None:
    shipped = shipped_specs("model")["miniwin-tiny"]
    path = tmp_path / "m.yaml"
    path.write_bytes(change(shipped.read_bytes()))
    assert load_spec(path) == load_spec(shipped)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.text(alphabet="a1:-?[]{}&*!|>'\"%@#,<~. \n\t", max_size=60))
def test_whatever_is_in_a_file_the_answer_is_a_spec_or_a_message(tmp_path_factory: Any, content: bytes | str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as error:
        load_spec(path)
    assert all(line.startswith(f"{path}") for line in str(error.value).split("\n"))


_LINES = shipped_specs("model")["miniwin-tiny"].read_text().split("\n")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_a_spec_with_a_slip_of_the_pen_loads_or_says_where(tmp_path_factory: Any, data: st.DataObject) -> None:
    lines = list(_LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.sampled_from([i for i, line in enumerate(lines) if "num_layers" not in line]))
        at = data.draw(st.integers(0, len(lines[row])))
        put = data.draw(st.text(alphabet="aS1:-[]{}&*!'\"#,<~ \t", max_size=2))
        lines[row] = lines[row][:at] + put + lines[row][at + data.draw(st.integers(0, 3)) :]
    path = tmp_path_factory.getbasetemp() / "slip.yaml"
    path.write_text("\n".join(lines))
    try:
        load_spec(path)
    except UserError as error:
        for said in str(error).split("\n"):
            place, row, column = said.split(":")[:3]
            assert place == str(path) and 1 <= int(row) <= len(lines) + 1
            assert 1 <= int(column) <= (len(lines[int(row) - 1]) if int(row) <= len(lines) else 0) + 1

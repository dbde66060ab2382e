"""The licence of an import: from the card, from GGUF's metadata, or stated; and with it to where the weights go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from foreign import toy_folder, use_toys
from gguf_files import STRING, Plain
from tiny import run_cli

from miniwin.licences import UNKNOWN, licence_of
from miniwin.specs import UserError
from miniwin.zoo.exporting import export_model
from miniwin.zoo.importing import import_model

BOMB = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [*{a}, *{a}]}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_toys(monkeypatch)
    return toy_folder(tmp_path / "toy")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model\n", "apache-2.0"),
        ("\ufeff---\r\nlicense: MIT \r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: some-research-licence\n---\n", "some-research-licence"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("---\nlicense: no\n---\n", "no"),
        ("# no front matter\nlicense: mit\n", None),
        ("---\nlicense: {a: 1}\n---\n", None),
        ("---\nlicense: mit\nx: [\n---\n", None),
        ("---\nlicense: mit\n", None),
        (f"---\n{'[' * 30_000}\n---\n", None),
        (f"---\n{BOMB}license: mit\n---\n", "mit"),
        ('---\nlicense: "a\\nb"\n---\n', None),
        ('---\nlicense: "\\u202emit"\n---\n', None),
        ("", None),
    ],
)
def test_the_card_says_it(source: Path, tmp_path: Path, card: str, expected: str | None) -> None:
    (source / "README.md").write_bytes(card.encode())
    made = import_model(source, tmp_path / "out")
    assert made.record["licence"] == expected
    assert licence_of(tmp_path / "out") == (expected or UNKNOWN)


def test_a_card_that_is_a_link_out_of_the_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("---\nlicense: mit\n---\n")
    (source / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"README\.md: a link that leads out of the folder"):
        import_model(source, tmp_path / "out")


def test_the_user_states_it(source: Path, tmp_path: Path) -> None:
    assert import_model(source, tmp_path / "stated", licence="Gemma").record["licence"] == "gemma"
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    assert import_model(source, tmp_path / "same", licence="MIT").record["licence"] == "mit"
    with pytest.raises(UserError, match=r"--licence gpl-3.0: toy says that its licence is mit; leave --licence out"):
        import_model(source, tmp_path / "no", licence="gpl-3.0")
    with pytest.raises(UserError, match=r"--licence: got .*; expected an SPDX name"):
        import_model(source, tmp_path / "no", licence="<script>")
    assert not (tmp_path / "no").exists()


def test_the_command_shows_it(source: Path, tmp_path: Path) -> None:
    code, out, _ = run_cli("import", str(source), "--to", str(tmp_path / "one"))
    assert code == 0 and "licence      not known; --licence says it" in out
    code, out, _ = run_cli("import", str(source), "--to", str(tmp_path / "two"), "--licence", "mit")
    assert code == 0 and "licence      mit" in out


def test_gguf_and_back(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from miniwin.zoo.exporting.gguf_file import export_gguf

    file = Plain()
    file.fields["general.license"] = (STRING, "Apache-2.0")
    (tmp_path / "small.gguf").write_bytes(file.bytes())
    assert import_model(tmp_path / "small.gguf", tmp_path / "first").record["licence"] == "apache-2.0"
    export_gguf(str(tmp_path / "first"), tmp_path / "again.gguf")
    assert import_model(tmp_path / "again.gguf", tmp_path / "second").record["licence"] == "apache-2.0"
    export_model(str(tmp_path / "second"), tmp_path / "folder", "stock")
    assert import_model(tmp_path / "folder", tmp_path / "third").record["licence"] == "apache-2.0"
    file.fields["general.license"] = (STRING, "\x1b[31m")
    (tmp_path / "odd.gguf").write_bytes(file.bytes())
    made = import_model(tmp_path / "odd.gguf", tmp_path / "fourth")
    assert made.record["licence"] is None and "the licence is left out" in made.notes[-1]
    assert json.loads((tmp_path / "fourth" / "import.json").read_text())["licence"] is None

"""A suite that is killed goes on behind its last part, and never mixes the parts of two measurements."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from forked import kill, start
from suites import TRAINED, corpus, measure, measure_there, model, small, untimed
from tiny import run_cli

from miniwin.evaluation.suite import run
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.result_table import print_table
from miniwin.evaluation.suite.run import place, run_suite
from miniwin.evaluation.suite.store import weights_hash
from miniwin.evaluation.suite.trained import trained_length
from miniwin.evaluation.task_scores import score_task
from miniwin.specs import UserError
from miniwin.tokenizer import ByteTokenizer


class Killed(Exception):
    pass


def quick(**changes: Any) -> Any:
    """Parts that take no time."""
    return small(speed=None, tasks=[{"task": {"type": "needle"}}], **changes)


def measured(monkeypatch: pytest.MonkeyPatch, most: int = 1000) -> list[str]:
    """The keys of parts as they are measured; after `most` of them, the process ends."""
    keys: list[str] = []
    kinds = run.KINDS

    def counted(kind: Any) -> Any:
        def parts(planned: Any) -> Any:
            for part in kind(planned):

                def measure(advance: Any, part: Any = part) -> Any:
                    if len(keys) == most:
                        raise Killed
                    keys.append(part.key)
                    return part.measure(advance)

                yield type(part)(part.key, part.title, part.tokens, measure)

        return parts

    monkeypatch.setattr(run, "KINDS", tuple(map(counted, kinds)))
    return keys


def test_a_process_that_ends_early_loses_one_part_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(quick(), out=tmp_path / "whole")
    every = {path.name for path in (tmp_path / "whole/parts").iterdir()}
    assert len(every) == 8
    with monkeypatch.context() as patched:
        first = measured(patched, most=3)
        with pytest.raises(Killed):
            measure(quick(), out=tmp_path / "killed")
    assert {path.name for path in (tmp_path / "killed/parts").iterdir()} == {f"{key}.json" for key in first}
    assert not (tmp_path / "killed/result.json").exists()
    rest = measured(monkeypatch)
    again = measure(quick(), out=tmp_path / "killed")
    assert len(first) == 3 and sorted([*first, *rest]) == sorted(name.removesuffix(".json") for name in every)
    assert untimed(again) == untimed(whole)
    rest.clear()
    assert untimed(measure(quick(), out=tmp_path / "killed")) == untimed(whole) and not rest
    assert SuiteResult.read(tmp_path / "killed/result.json") == measure(quick(), out=tmp_path / "killed")


def test_kill_9_in_the_middle(tmp_path: Path) -> None:
    """A real process is killed again and again, whatever it is doing; each time every part under its name is whole."""
    out = tmp_path / "killed"
    parts, kills = 0, 0
    for wanted in (1, 4, 7):
        process = start(measure_there, str(out))
        while process.is_alive() and len(list(out.glob("parts/*.json"))) < wanted:
            time.sleep(0.002)
        if process.is_alive():
            kill(process)
            kills += 1
        found = list(out.glob("parts/*.json"))
        assert len(found) >= parts
        parts = len(found)
        for path in found:
            assert json.loads(path.read_text())["rows"]
    assert kills >= 1
    assert untimed(measure(small(), out=out)) == untimed(measure(small(), out=tmp_path / "whole"))


def test_a_damaged_part_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(quick(), out=tmp_path)
    (tmp_path / "parts/needle@128.json").write_text('{"rows": [')
    (tmp_path / "parts/cache_bytes@32.json").write_text('{"seconds": 0, "rows": [{"key": "cache_bytes@32"}]}')
    keys = measured(monkeypatch)
    assert untimed(measure(quick(), out=tmp_path)) == untimed(whole)
    assert keys == ["needle@128", "cache_bytes@32"]


def test_a_part_under_another_name_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(quick(), out=tmp_path)
    (tmp_path / "parts/needle@32.json").write_bytes((tmp_path / "parts/needle@128.json").read_bytes())
    keys = measured(monkeypatch)
    assert untimed(measure(quick(), out=tmp_path)) == untimed(whole)
    assert keys == ["needle@32"]


def test_parts_of_two_measurements_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    measure(quick(), out=out)

    def refused(match: str, tested: Any = None, suite: Any = None, data: Any = None, trained: int = TRAINED) -> None:
        with pytest.raises(
            UserError, match=f"out holds parts of another measurement: {match}.*or start anew with --fresh"
        ):
            run_suite(tested or model(), suite or quick(), data or corpus(), trained_length=trained, out=out)

    changed = model()
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] += 1
    refused(r"its model had weights [0-9a-f]+\.\.\., and [0-9a-f]+\.\.\. now", changed)
    refused("its suite had examples 6, and 7 now", suite=quick(examples=7))
    refused("its suite had loss.documents 3, and 4 now", suite=quick(loss={"documents": 4}))
    refused("its suite had cache.lengths null, and \\[1x, 64\\] now", suite=quick(cache={"lengths": ["1x", 64]}))
    refused("its suite had shift \\{.*, and null now", suite=quick(shift=None))
    refused("its data had fingerprint", data=corpus(1))
    refused("its model had trained_length 32, and 40 now", trained=40)
    refused("its dtype was float32, and is bfloat16 now", model().bfloat16())
    tokenizer = ByteTokenizer()
    monkeypatch.setattr(ByteTokenizer, "identity", "other")
    refused("its tokenizer was byte, and is other now")
    monkeypatch.undo()
    assert tokenizer.identity == "byte"
    more = small(speed=None, tasks=[{"task": {"type": "needle", "digits": 3}}])
    refused("its suite had tasks.0.task.digits 5, and 3 now", suite=more)
    more = small(speed=None, tasks=[{"task": {"type": "needle"}}, {"task": {"type": "copy"}, "lengths": ["4x"]}])
    refused("its suite had tasks.1 left out, and \\{task: \\{type: copy, .*\\.\\.\\. now", suite=more)
    fresh = run_suite(model(), quick(examples=7), corpus(), trained_length=TRAINED, out=out, fresh=True)
    assert fresh["needle@32"].n == 7
    assert weights_hash(model()) == weights_hash(model()) != weights_hash(changed)
    monkeypatch.setattr(run, "__version__", "9.9")
    refused(r"its version was .*, and is 9\.9 now", suite=quick(examples=7))


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(UserError, match=r"has other files, such as notes\.txt, and is not the folder of a suite"):
            measure(quick(), out=tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"notes\.txt is a file; expected a folder"):
        measure(quick(), out=tmp_path / "notes.txt")


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="another process is measuring in"):
        measure(quick(), out=tmp_path)


def test_a_head_that_we_did_not_write_is_refused(tmp_path: Path) -> None:
    for text, match in (("{", "is not JSON"), ('{"format": 1}', "is not what this version of miniwin wrote")):
        (tmp_path / "suite.json").write_text(text)
        with pytest.raises(UserError, match=f"suite.json {match}.*or start anew with --fresh"):
            measure(quick(), out=tmp_path)
    assert measure(quick(), out=tmp_path, fresh=True).rows


# -- the command


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite of two parts, and a run folder."""
    monkeypatch.chdir(tmp_path)
    text = "kind: suite\nformat: 1\nname: mine\nlengths: [64, 2x]\nexamples: 2\ntasks:\n  - task: {type: needle}\n"
    (tmp_path / "mine.yaml").write_text(text)
    return tmp_path


def test_the_command_says_where_parts_go_and_goes_on(there: Path) -> None:
    code, out, err = run_cli("eval", "miniwin-tiny", "--suite", "mine.yaml", "--trained-length", "64")
    assert code == 0, err
    assert "parts go to miniwin-tiny-random-weights-mine; the same command goes on with them" in err
    assert "1 of 2  needle at 64: " in err and "2 of 2  needle at 128: " in err
    assert "needle" in out and "95 % interval" in out
    assert (there / "miniwin-tiny-random-weights-mine/result.json").is_file()
    code, again, err = run_cli("eval", "miniwin-tiny", "--suite", "mine.yaml", "--trained-length", "64")
    assert "2 of 2 parts were measured before" in err and again == out
    code, printed, err = run_cli(
        "eval", "miniwin-tiny", "--suite", "mine.yaml", "--trained-length", "64", "--json", "-"
    )
    assert SuiteResult.from_dict(json.loads(printed))["needle@128"].n == 2


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (("eval", "miniwin-tiny"), "miniwin-tiny-random-weights-mine"),
        (("compare", "miniwin-tiny", "minimind-tiny"), "miniwin-tiny-random-weights-mine"),
    ],
)
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    there: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], folder: str
) -> None:
    line = (*command, "--suite", "mine.yaml", "--trained-length", "64", "--quiet")

    def stopped(after: int, *more: str) -> list[str]:
        """What is said on stderr behind the line that names a model."""
        left = iter(range(after))

        def score(*given: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return score_task(*given, **options)

        with monkeypatch.context() as patched:
            patched.setattr("miniwin.evaluation.suite.tasks.score_task", score)
            code, out, err = run_cli(*line, *more)
        assert (code, out) == (130, "")
        return err.splitlines()

    assert stopped(0) == ["interrupted: no part is measured yet", "the same command goes on"]
    kept = [f"interrupted: {folder}", "  1 part measured and kept there"]
    assert stopped(1) == [*kept, "the same command goes on"]
    assert stopped(1, "--fresh") == [*kept, "the same command without --fresh goes on"]
    assert run_cli(*line)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--suite", "mine.yaml"],
            "2x is a multiple of the training length, and that is not known",
        ),
        (["--suite", "mine.yaml", "--lengths", "64"], "--lengths has no meaning with --suite, whose file says it"),
        (["--suite", "mine.yaml", "--no-recall"], "--recall has no meaning with --suite"),
        (["--out", "x"], "--out is of a suite; add --suite quick, say, or leave it out"),
        (["--trained-length", "64"], "--trained-length is of a suite"),
        (["--suite", "quik"], "quik: there is no such file, and no shipped spec is called so; did you mean 'quick'?"),
        (["--suite", "miniwin-tiny"], "there is no such file, and no shipped spec is called so"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(there: Path, options: list[str], message: str) -> None:
    code, out, err = run_cli("eval", "miniwin-tiny", *options)
    assert code == 2 and message in err and not out
    assert [path.name for path in there.iterdir()] == ["mine.yaml"]


def test_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every row has n, chance and an interval; what was left out says why."""
    suite = small(
        no_room="skip", lengths=["1x", "4x"], speed=None, tasks=[{"task": {"type": "recall", "num_queries": 2}}]
    )
    print_table(measure(suite, out=tmp_path / "out"))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("tiny: 13,394") and lines[0].endswith(
        " parameters, trained at 32, suite small, cpu, float32"
    )
    assert lines[1].split() == ["measure", "length", "value", "95", "%", "interval", "n", "of", "chance", "blind"]
    rows = {tuple(line.split()[:2]): line.split() for line in reversed(lines[2:])}
    assert rows["recall", "32"] == ["recall", "32", "1x", "left", "out", "-", "0", "examples", "3.8%", "-"]
    assert rows["cache", "bytes"][2:] == ["32", "1x", "5", "KiB", "exact", "1", "exact", "-", "-"]
    assert rows["bits", "per"][:5] == ["bits", "per", "byte", "32", "1x"]
    assert (
        "Bits per byte are of documents longer than 128 tokens, the longest length here; another longest length "
        "means other documents."
    ) in lines
    assert lines[-1].startswith(
        "left out: recall@32: task recall: an example takes at least 90 bytes, and length is 32"
    )


# -- what 1x means


def test_the_training_length_of_runs_entries_and_specs(tmp_path: Path) -> None:
    import miniwin

    assert trained_length(miniwin.load("miniwin-1m")) == 512
    assert trained_length(miniwin.load("miniwin-tiny")) is None
    tested = model()
    for seq_len, expected in ((64, 64), ([32, 128], 128), (None, None), ("long", None)):
        folder = tmp_path / str(seq_len)
        folder.mkdir()
        (folder / "provenance.json").write_text(json.dumps({"run": {"train": {"seq_len": seq_len}}}))
        tested.folder = folder
        assert trained_length(tested) == expected


def test_the_place_of_parts(tmp_path: Path) -> None:
    tested = model()
    assert place(tested, small()) == Path("tiny-small")
    tested.ref = "/some/where/my-model.yaml (random weights)"
    assert place(tested, small()) == Path("my-model-small")
    tested.folder, tested.ref = tmp_path, "miniwin-1m@1.0.0"
    assert place(tested, small()) == Path("miniwin-1m-1.0.0-small")
    (tmp_path / "run.json").write_text("{}")
    assert place(tested, small()) == tmp_path / "suites" / "small"
    (tmp_path / "best.safetensors").write_bytes(b"")
    tested.ref = f"{tmp_path}/best.safetensors"
    assert place(tested, small()) == tmp_path / "best-suites" / "small"

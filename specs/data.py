"""Where the text to train on comes from, and how it is split into train and valid.

Seven sources, told apart by `source`. Paths are relative to the folder of the YAML file that names them. The
split never depends on the machine: a file or line goes to one side by a hash of its name or of its text, not
by its place in a list.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator, model_validator

from miniwin.blocks.positions.base import located
from miniwin.evaluation.tasks import TASKS, Task
from miniwin.specs.base import Count, Grown, PositiveInt, PositiveReal, Real, Strict, any_name

Share = Annotated[Real, Field(gt=0, lt=1)]  # of the text, kept back for validation


def _some(paths: tuple[str, ...]) -> tuple[str, ...]:
    # Not min_length: pydantic would call a list whose only item is wrong an empty one, too.
    if not paths:
        raise ValueError("got an empty list; expected at least one path")
    return paths


Paths = Annotated[
    tuple[Annotated[str, Field(min_length=1), WrapValidator(any_name)], ...],
    Field(strict=False, json_schema_extra={"minItems": 1}),
    AfterValidator(_some),
]

DEFAULT_SHARE = 0.1


class _Split(Grown):
    """A source of text that may be asked to keep back a share for a test: it is taken out of train, and valid stays."""

    LATER: ClassVar[frozenset[str]] = frozenset({"test_fraction", "test_paths"})

    source: str  # declared here so that it is written first

    def _fits(self, valid: float, test: float | None) -> None:
        if test is not None and valid + test >= 1:
            raise ValueError(
                f"valid_fraction ({valid:g}) and test_fraction ({test:g}) leave nothing to train on; expected less "
                "than 1 of both together"
            )


class PythonStdlibData(_Split):
    """The standard library of the Python that runs this: a code corpus that every machine already has."""

    source: Literal["python-stdlib"] = "python-stdlib"
    valid_fraction: Share = DEFAULT_SHARE
    test_fraction: Share | None = None

    @model_validator(mode="after")
    def _leaves_some(self) -> PythonStdlibData:
        self._fits(self.valid_fraction, self.test_fraction)
        return self


class _PathData(_Split):
    """What `text`, `jsonl` and `table` share. Valid, and test, are a fraction of `paths` or all of their own paths."""

    paths: Paths
    valid_fraction: Share | None = None  # null: 0.1, unless there are valid_paths
    valid_paths: Paths | None = None
    test_fraction: Share | None = None
    test_paths: Paths | None = None

    @model_validator(mode="after")
    def _one_way_to_split(self) -> _PathData:
        if self.valid_paths is not None and self.valid_fraction is not None:
            raise ValueError(
                f"got both valid_fraction ({self.valid_fraction:g}) and valid_paths; expected one of them: "
                "valid_paths says which text is valid, valid_fraction has it taken from paths"
            )
        if self.test_fraction is not None and (self.test_paths is not None or self.valid_paths is not None):
            other = "test_paths" if self.test_paths is not None else "valid_paths"
            raise ValueError(
                f"got both test_fraction ({self.test_fraction:g}) and {other}; expected fractions alone, or "
                "test_paths to say which text is for the test"
            )
        self._fits(self.share, self.test_fraction)
        return self

    @property
    def share(self) -> float:
        """The fraction of `paths` that is valid: 0 when there are `valid_paths`."""
        if self.valid_paths is not None:
            return 0.0
        return DEFAULT_SHARE if self.valid_fraction is None else self.valid_fraction


class TextData(_PathData):
    """Text files, folders (everything in them) and globs; each file is a document.

    `split: file` sends whole files to one side; `split: tail` keeps back the last part of every file. The default is
    `file` where the bytes kept back come within a factor of two of `valid_fraction`, as with many files, else `tail`.
    """

    source: Literal["text"] = "text"
    split: Literal["file", "tail"] | None = None

    @model_validator(mode="after")
    def _split_means_something(self) -> TextData:
        if self.valid_paths is not None and self.split is not None:
            raise ValueError(
                f"got both split ({self.split}) and valid_paths; valid_paths is the split: leave out split"
            )
        return self


class JsonlData(_PathData):
    """JSON lines, a document per line in `field`: `{"text": ...}`. Equal texts land on the same side."""

    source: Literal["jsonl"] = "jsonl"
    field: Annotated[str, Field(min_length=1)] = "text"


class TableData(_PathData):
    """Parquet and Arrow files, and folders that Hugging Face's `datasets` saved; a document per row, in the column
    `field`. Equal texts land on the same side."""

    source: Literal["table"] = "table"
    field: Annotated[str, Field(min_length=1)] = "text"


class ChatData(_PathData):
    """Chats as JSON lines, `{"conversations": [{"role": ..., "content": ...}, ...]}`, through a chat template.

    `loss: answers` counts what the model is to say. Equal chats land on the same side.
    """

    source: Literal["chat"] = "chat"
    loss: Literal["answers", "all"] = "answers"
    template: Annotated[str, Field(min_length=1), WrapValidator(any_name)] | None = None  # null: that of the weights


class TaskData(_Split):
    """Examples generated for one task, `length` bytes each, `tokens` bytes of them to train on."""

    source: Literal["tasks"] = "tasks"
    task: Literal["associative-recall"]
    length: PositiveInt = 256
    num_pairs: PositiveInt = 16
    tokens: PositiveInt = 4_000_000
    valid_fraction: Share = DEFAULT_SHARE  # a share of `tokens`, generated on top of them
    test_fraction: Share | None = None  # likewise
    seed: Count = 0


class ExamplesData(Strict):
    """Examples of a task (miniwin/evaluation/tasks), drawn when they are needed: no row comes twice.

    A row of seq_len N is an example of N + 1 bytes. `loss: answers` counts the bytes of the answers only.
    """

    source: Literal["examples"] = "examples"
    task: TASKS.field()  # type: ignore[valid-type]
    loss: Literal["answers", "all"] = "answers"
    seed: Count = 0

    @property
    def parsed_task(self) -> Task:
        """The task, as a type that checkers know."""
        assert isinstance(self.task, Task)
        return self.task


# Sources that become a corpus on disk.
Stored = PythonStdlibData | TextData | JsonlData | TaskData | TableData | ChatData


def _no_mixture(data: Any) -> Any:
    if (data.get("source") if isinstance(data, dict) else getattr(data, "source", None)) == "mixture":
        raise ValueError(
            "got a mixture within a mixture; expected another source: name its parts here, beside the others"
        )
    return data


class MixturePart(Strict):
    """One source of a mixture, which gives `weight` of every so many rows."""

    weight: PositiveReal
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)] | None = None
    data: Annotated[Stored | ExamplesData, BeforeValidator(_no_mixture), Field(discriminator="source")]

    @property
    def label(self) -> str:
        """What its loss is called: the name, or else the task, or the source."""
        default = self.data.parsed_task.type if isinstance(self.data, ExamplesData) else self.data.source
        return default if self.name is None else self.name


class MixtureData(Strict):
    """Several sources in one run: the rows of a batch come from the parts in proportion to the weights."""

    source: Literal["mixture"] = "mixture"
    parts: Annotated[tuple[MixturePart, ...], Field(strict=False, json_schema_extra={"minItems": 2})]

    @model_validator(mode="after")
    def _parts_differ(self) -> MixtureData:
        if len(self.parts) < 2:
            raise located(
                "parts", f"got {len(self.parts)}; expected two or more parts, or their source without a mixture"
            )
        for place, part in enumerate(self.parts):
            for before, other in enumerate(self.parts[:place]):
                if part.data == other.data:
                    raise located(
                        f"parts.{place}.data",
                        f"the same data as parts.{before}: name it once, with the sum of the weights",
                    )
                if part.label == other.label:
                    raise located(
                        f"parts.{place}",
                        f"called {part.label!r}, as parts.{before} is; expected different names: give it a name",
                    )
        return self


DataSpec = Annotated[Stored | ExamplesData | MixtureData, Field(discriminator="source")]


def tasks_in(data: DataSpec) -> list[Task]:
    """The tasks of a source that draws examples, alone or as parts of a mixture."""
    return [part.parsed_task for part in _parts(data) if isinstance(part, ExamplesData)]


def tasks_alone(data: DataSpec) -> list[Task]:
    """The tasks of a source that draws examples and nothing else; empty for any other source."""
    return [] if has_text(data) else tasks_in(data)


def has_text(data: DataSpec) -> bool:
    """Whether the source has a valid split to measure bits per byte on."""
    return any(not isinstance(part, ExamplesData) for part in _parts(data))


def without_test(data: DataSpec) -> tuple[str, str] | None:
    """The first text that keeps nothing back for a test: its path in a train spec, and its source. None if every text
    does. Examples of tasks are drawn, and have a test split always."""
    several = isinstance(data, MixtureData)
    for place, part in enumerate(_parts(data)):
        kept = isinstance(part, ExamplesData) or part.test_fraction is not None or getattr(part, "test_paths", None)
        if not kept:
            return (f"data.parts.{place}.data" if several else "data"), part.source
    return None


def _parts(data: DataSpec) -> list[Stored | ExamplesData]:
    return [part.data for part in data.parts] if isinstance(data, MixtureData) else [data]

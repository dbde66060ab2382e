"""Tables as a source of text: Parquet files, Arrow files, and folders that Hugging Face's `datasets` saved.

A row is a document, and a column holds the texts. Files are read batch by batch: memory is bounded by a batch, whatever
the size of the file. pyarrow reads them. It is an extra, and imported only where a table is read.

    *.parquet                        Parquet
    *.arrow, *.feather               Arrow: a file (Feather version 2), or a stream, which `datasets` writes
    a folder with state.json         from Dataset.save_to_disk: the files that state.json names, and no others, since
                                     caches lie beside them
    a folder with dataset_dict.json  from DatasetDict.save_to_disk: refused, since one of its splits has to be named
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.listing import some
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.specs import UserError

SUFFIXES = (".parquet", ".arrow", ".feather")
STATE, SPLITS = "state.json", "dataset_dict.json"
ROWS = 256  # read at once from a row group
PARQUET, FILE, STREAM, FEATHER_1 = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"FEA1"  # what files begin with


def chosen(paths: Iterable[Path], where: str) -> list[Path]:
    """The tables among the files of a folder. where: the field of the spec that names the folder.

    Raises:
        UserError: a folder holds several splits of a dataset, or is not as `datasets` saved it.
    """
    saved: dict[Path, frozenset[str] | None] = {}
    found = []
    for path in paths:
        if path.name == SPLITS:
            raise UserError(f"{where}: {_one_split(path)}")
        if path.suffix not in SUFFIXES:
            continue
        if path.parent not in saved:
            saved[path.parent] = _saved(path.parent, where)
        names = saved[path.parent]
        if names is None or path.name in names:
            found.append(path)
    return found


def check(path: Path, field: str) -> None:
    """Raise UserError if a file is no table, or has no text in the column `field`. Only its schema is read."""
    with _opened(path, field):
        pass


def size(path: Path, field: str) -> int:
    """About how many bytes of text a file holds. A column of Parquet is compressed."""
    with _opened(path, field) as table:
        if not _is_parquet(table):
            return path.stat().st_size
        groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
        columns = [group.column(place) for group in groups for place in range(group.num_columns)]
        return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == field)


def texts(path: Path, field: str) -> Iterator[str]:
    """The text of each row, in order.

    Raises:
        UserError: the file is damaged, or a row has no text.
    """
    row = 0
    with _opened(path, field) as table:
        for texts in _batches(table, field):
            texts.validate(full=True)  # a damaged file may point anywhere in memory
            if texts.null_count:
                row += texts.is_null().index(True).as_py()
                raise UserError(f"{path}: row {row} (from 0) has no text in {field!r}: it is null; expected text")
            for text in texts:
                yield text.as_py()
            row += len(texts)
            del texts  # or it would be in memory beside the next one


def _is_parquet(table: Any) -> bool:
    return hasattr(table, "iter_batches")


def _batches(table: Any, field: str) -> Iterator[Any]:
    """The column, piece by piece. A batch of an Arrow file is as large as its writer made it."""
    if _is_parquet(table):
        batches = table.iter_batches(ROWS, columns=[field])
    elif hasattr(table, "get_batch"):  # an Arrow file
        batches = (table.get_batch(number) for number in range(table.num_record_batches))
    else:
        batches = iter(table)
    return (batch.column(0) for batch in batches)


@contextmanager
def _opened(path: Path, field: str) -> Iterator[Any]:
    """pyarrow's reader of a file. Within the block, pyarrow's errors are the user's. Of an Arrow file and a stream it
    reads the column alone."""
    pyarrow, ipc = _pyarrow()
    try:
        with ExitStack() as stack:
            with path.open("rb") as file:
                start = file.read(8)
            if start.startswith(PARQUET):
                from pyarrow.parquet import ParquetFile

                # Buffered: a column of a row group is read piece by piece, not as a whole.
                table = stack.enter_context(ParquetFile(path, buffer_size=1 << 20, pre_buffer=False))
                _column(path, table.schema_arrow, field)
                yield table
                return
            if start.startswith(FEATHER_1):
                raise UserError(f"{path}: this is Feather version 1; expected version 2, which pyarrow writes today")
            if not start.startswith((FILE, STREAM)):
                raise UserError(f"{path}: this is neither a Parquet nor an Arrow file, or it is damaged")
            opened = ipc.open_file if start.startswith(FILE) else ipc.open_stream
            source = stack.enter_context(pyarrow.OSFile(str(path)))
            place = _column(path, opened(source).schema, field)
            source.seek(0)
            options = ipc.IpcReadOptions(included_fields=[place])
            yield stack.enter_context(opened(source, options=options))
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: the file is damaged or cut short ({said}); get it again, or leave it out") from None


def _column(path: Path, schema: Any, field: str) -> int:
    """The place of the column among the others."""
    import pyarrow.types as types

    places = schema.get_all_field_indices(field)
    if len(places) != 1:
        has = "several columns" if places else "no column"
        raise UserError(f"data.field: {path}: there is {has} {field!r}; its columns are: {some(schema.names, 20)}")
    kind = schema.field(places[0]).type
    of = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(of) or types.is_large_string(of) or types.is_string_view(of)):
        others = [one.name for one in schema if types.is_string(one.type) or types.is_large_string(one.type)]
        text = f"; columns of text are: {some(others, 20)}" if others else "; it has no column of text"
        raise UserError(f"data.field: {path}: the column {field!r} is {str(kind)[:80]}; expected text{text}")
    return int(places[0])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError:
        raise UserError(
            "data.source: source: table needs pyarrow, which is not installed: pip install 'miniwin[parquet]'"
        ) from None
    return pyarrow, ipc


def _saved(folder: Path, where: str) -> frozenset[str] | None:
    """The files that Dataset.save_to_disk wrote into a folder. None for another folder."""
    if not (folder / STATE).is_file():
        return None
    state = _json(folder / STATE, where)
    files = state.get("_data_files")
    if not isinstance(files, list):
        return None
    if any(value for key, value in state.items() if key.startswith("_indices")):
        raise UserError(
            f"{where}: {folder} has its rows in another order than its files; save it again, after flatten_indices()"
        )
    names = frozenset(str(file.get("filename")) for file in files if isinstance(file, dict))
    if gone := sorted(name for name in names if not (folder / name).is_file()):
        raise UserError(f"{where}: {folder / STATE} names {some(gone, 8)}, which is not there; put it back")
    return names


def _one_split(path: Path) -> str:
    """Why a folder of several splits is refused: to train on all would be to train on its test set."""
    splits = _json(path, "data").get("splits")
    names = [str(name) for name in splits] if isinstance(splits, list) and splits else ["train"]
    return (
        f"{path.parent} holds several splits of a dataset ({some(names, 8)}); name the one to train on, such as "
        f"{path.parent / names[0]}, and another in valid_paths if you like"
    )


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        data = read_json(path)
    except (OSError, JSONProblem) as error:
        raise UserError(f"{where}: {path} cannot be read: {error}") from None
    return data if isinstance(data, dict) else {}

"""All files of a model: one, or shards such as model-00001-of-00003.gguf. Any of them may be named.

The first has the metadata. Each says its own number, how many there are, and how many tensors all hold together.
"""

from __future__ import annotations

import re
from pathlib import Path

from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.importing.gguf.header import Header, TensorInfo, read_header, said

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
MOST = 1000


def read_headers(path: Path) -> tuple[Header, dict[str, Path]]:
    """The header of the first file with the tensors of all, and the files by name.

    Raises:
        UserError: a file is missing or damaged, or the files do not belong together.
    """
    header = read_header(path)
    count = header.metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= MOST:
        raise UserError(f"{path}: split.count: got {said(count)}; expected the number of files, at most {MOST}")
    if count <= 1:
        return header, {path.name: path}
    named = SHARD.fullmatch(path.name)
    if named is None or int(named[3]) != count:
        raise UserError(
            f"{path}: one of {count} files of a model; they find each other by their names, such as "
            f"model-00001-of-{count:05}.gguf: give them those"
        )
    paths = [path.with_name(f"{named[1]}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]
    missing = [one.name for one in paths if not one.is_file()]
    if missing:
        raise UserError(f"{path}: of {count} files of this model {missing[0]} is missing; fetch it too")
    headers = [header if one == path else read_header(one) for one in paths]
    tensors: dict[str, TensorInfo] = {}
    for i, one in enumerate(headers):
        number = one.metadata.get("split.no")
        if one.metadata.get("split.count") != count or number != i:
            raise UserError(
                f"{one.path}: says that it is file {said(number)} (split.no, from 0) of "
                f"{said(one.metadata.get('split.count'))}; expected {i} of {count}; fetch it again"
            )
        for name in one.tensors:
            if name in tensors:
                raise UserError(
                    f"{one.path}: tensor {shown(name)} is in {tensors[name].path.name} too; fetch them again"
                )
        tensors |= one.tensors
    total = headers[0].metadata.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise UserError(f"{paths[0]}: says that all files have {said(total)} tensors; they have {len(tensors)}")
    return Header(headers[0].path, headers[0].metadata, tensors), {one.name: one for one in paths}

"""From what the user named to a target.

folder            any folder, which any web server can serve
"""

from __future__ import annotations

from miniwin.specs.base import user_path
from miniwin.zoo.errors import ZooError
from miniwin.zoo.publishing.folder import FolderTarget
from miniwin.zoo.publishing.hub import HubTarget
from miniwin.zoo.publishing.s3 import S3Target
from miniwin.zoo.publishing.targets import Target


def open_target(text: str) -> Target:
    """The target that the user named. Raises ZooError for one that cannot be published to."""
    if text.startswith("s3://"):
        return S3Target(text)
    if text.startswith("hf:"):
        return HubTarget(text)
    if ":" in text.partition("/")[0] and text[1:3] not in (":\\", ":/"):
        raise ZooError(f"{text}: expected a folder, s3://bucket/path or hf:organisation/repository")
    return FolderTarget(user_path(text))

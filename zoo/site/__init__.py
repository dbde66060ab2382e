"""`miniwin zoo site`: the models of zoos as pages that need no server and no network."""

from miniwin.zoo.site.building import Built, build

__all__ = ["Built", "build"]

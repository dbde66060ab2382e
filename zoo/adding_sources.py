"""Adding a zoo: its index is read before it is trusted, so that a wrong address or key is noticed at once."""

from __future__ import annotations

from miniwin.zoo.configured import Source, add_source, find_source, remove_source, sources
from miniwin.zoo.errors import ZooError
from miniwin.zoo.http_client import offline
from miniwin.zoo.index_query import Offer, Place, read_offers
from miniwin.zoo.locations import index_location, is_url
from miniwin.zoo.references import is_name
from miniwin.zoo.rollback import forget
from miniwin.zoo.signatures import public_key


def add_checked(name: str, location: str, key: str | None) -> tuple[Source, list[Offer]]:
    """Add a zoo whose index can be read and is signed as demanded. Returns what it offers, too.

    Raises:
        ZooError: it cannot be, or MINIWIN_OFFLINE is set and the zoo is elsewhere.
    """
    public = None if key is None else public_key(key)
    if is_url(location) and not location.startswith("file:") and offline():
        raise ZooError(f"{location}: not asked, because MINIWIN_OFFLINE is set; unset it to add a zoo")
    source = add_source(name, location, public)
    try:
        return source, read_offers(Place(source.place, name, public))
    except ZooError:
        remove_source(name)
        raise


def forget_source(name: str) -> str:
    """Forget what a zoo said before. name: of an added zoo, or the location of an index. Returns the location.

    Raises:
        ZooError: nothing was known of it.
    """
    added = is_name(name) and any(source.name == name for source in sources())
    place = find_source(name).place if added else index_location(name)
    if not forget(place):
        raise ZooError(f"{name}: nothing was remembered of it; expected the name of an added zoo, or an index")
    return str(place)

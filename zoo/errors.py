"""The errors of the zoo that a user can mend."""

from __future__ import annotations

from miniwin.specs import UserError


class ZooError(UserError):
    """A mistake or a damage in the zoo. The message says what was found, where, and what to do."""


class UnreachableError(ZooError):
    """No answer came from the network. What is there is not known."""

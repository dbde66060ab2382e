"""What the zoo raises when a user can mend it."""

from __future__ import annotations

from miniwin.specs import UserError


class ZooError(UserError):
    """A mistake or a damage in the zoo. The message says what was found, where, and what to do."""


class UnreachableError(ZooError):
    """No answer came from the network. Nothing is said about what is there."""

"""Signatures of indexes, as minisign writes them (Ed25519 over a BLAKE2b hash; https://jedisct1.github.io/minisign).

A signature lies beside its index, in `signatures/<sha256 of the index>.minisig`: it is there before the index is, so
that nobody reads an index without its signature. A reader also takes `index.json.minisig`, where minisign puts it.

The package py-minisign does the work (extra sign). Only prehashed signatures are taken: minisign's default.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from miniwin.specs import UserError
from miniwin.specs.base import user_path
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import INDEX, SIGNATURES

LONGEST = 16 << 10  # bytes of a key or a signature; a few hundred are usual
PASSWORD = "MINIWIN_SIGNING_PASSWORD"


def places(data: bytes) -> tuple[str, str]:
    """Where the signature of an index may lie, relative to it. data: the bytes of the index."""
    return f"{SIGNATURES}/{hashlib.sha256(data).hexdigest()}.minisig", f"{INDEX}.minisig"


def public_key(text: str) -> str:
    """A public key in one line (base64), from that line or from a `.pub` file. Raises ZooError."""
    minisign = _library()
    path = user_path(text)
    try:
        if path.is_file():
            return str(minisign.PublicKey.from_bytes(_read(path)).to_base64().decode())
        return str(minisign.PublicKey.from_base64(text.strip()).to_base64().decode())
    except ValueError as error:
        what = f"the file {path}" if path.is_file() else repr(text)
        raise ZooError(f"key: {what} is no minisign public key ({error}); expected RW... or a .pub file") from None


def key_id(public: str) -> str:
    """The id of a public key, as minisign shows it."""
    return bytes(_library().PublicKey.from_base64(public)._keynum_pk.key_id)[::-1].hex().upper()


def check_signature(data: bytes, signature: bytes | None, public: str, where: str) -> None:
    """Raise ZooError unless `signature` is that of `data` by the owner of the key. where: the index, for messages."""
    minisign = _library()
    demanded = f"its source was added with key {key_id(public)}"
    if signature is None:
        raise ZooError(f"{where}: has no signature, and {demanded}; nothing of it is used")
    try:
        signed = minisign.Signature.from_bytes(signature)
        if not signed.is_prehashed():
            raise ZooError(
                f"{where}: the signature is of the old kind, without a hash; sign with minisign 0.8 or newer"
            )
        minisign.PublicKey.from_base64(public).verify(data, signed)
    except ZooError:
        raise
    except ValueError as error:
        raise ZooError(f"{where}: the signature is not one of these bytes ({error}), and {demanded}; nothing of it is "
                       "used") from None  # fmt: skip


class Signer:
    """A secret key that is ready to sign. Its public half is `public`."""

    def __init__(self, path: Path, password: str | None = None) -> None:
        """password: by default $MINIWIN_SIGNING_PASSWORD. Raises ZooError."""
        minisign = _library()
        try:
            self._key: Any = minisign.SecretKey.from_bytes(_read(path))
            if self._key.is_encrypted():
                given = os.environ.get(PASSWORD) if password is None else password
                if given is None:
                    raise LockedKey(f"{path}: the key has a password; set {PASSWORD}, or type it on a terminal")
                self._key.decrypt(given)
            self.public = str(minisign.PublicKey.from_secret_key(self._key).to_base64().decode())
        except ZooError:
            raise
        except ValueError as error:
            raise ZooError(f"{path}: the secret key cannot be used: {error}") from None

    def sign(self, data: bytes, comment: str) -> bytes:
        """comment: signed, too; one line of ASCII."""
        return bytes(self._key.sign(data, trusted_comment=comment))


class LockedKey(ZooError):
    """A secret key has a password, and none was given."""


def make_keys(path: Path, password: str | None) -> tuple[Path, str]:
    """Write a new secret key to `path` and its public half beside it. Returns the second path and the public key.

    password: None or empty for a key that anybody who reads the file can use.

    Raises:
        ZooError: one of the files exists already, or cannot be written.
    """
    minisign = _library()
    shown = path.with_name(f"{path.name.removesuffix('.key')}.pub")
    for one in (path, shown):
        if one.exists():
            raise ZooError(f"{one}: exists already, and a key is never overwritten; choose another name")
    pair = minisign.KeyPair.generate()
    public = str(pair.public_key.to_base64().decode())
    if password:
        pair.secret_key.encrypt(password)
    try:
        for one, text, mode in ((path, bytes(pair.secret_key), 0o600), (shown, bytes(pair.public_key), 0o644)):
            with os.fdopen(os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(text.rstrip(b"\n") + b"\n")
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise ZooError(f"{error.filename or path}: could not be written: {error.strerror}") from error
    return shown, public


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise ZooError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > LONGEST:
        raise ZooError(f"{path}: is larger than any minisign key")
    return data


def _library() -> Any:
    try:
        import minisign
    except ImportError:
        raise UserError(
            "signatures need the package py-minisign, which is not installed: pip install 'miniwin[sign]'"
        ) from None
    if not hasattr(minisign, "KeyPair"):
        raise UserError("the package minisign is another one than py-minisign: pip uninstall minisign, then "
                        "pip install 'miniwin[sign]'")  # fmt: skip
    return minisign

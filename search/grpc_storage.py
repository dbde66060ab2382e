"""Optuna's gRPC proxy as the storage of a study: `grpc://host:port`.

A proxy stands before a database or a journal, and its clients need no driver and no password of it. A client that finds
the proxy away waits for as long as a restart takes.
"""

from __future__ import annotations

import warnings
from types import FunctionType
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy

from miniwin.search.database import patient
from miniwin.search.storage_url import proxy_address

AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def open_proxy(url: str) -> BaseStorage:
    """The storage behind a proxy.

    Raises:
        UserError: the URL is not grpc://host:port.
        ImportError: grpcio is not installed.
    """
    host, port = proxy_address(url)
    import grpc  # noqa: F401 - Optuna would say so at its first call

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = _PatientProxy(host=host, port=port)
    storage.url = url
    return storage


class _PatientProxy(GrpcStorageProxy):
    url: str


def _away(error: Exception) -> str | None:
    """What is wrong if the proxy is away; None for any other failure."""
    code: Any = getattr(error, "code", None)
    if not callable(code) or getattr(code(), "name", "") not in AWAY:
        return None
    return str(error.details() or code().name)  # type: ignore[attr-defined]


for _name, _method in vars(GrpcStorageProxy).items():
    if isinstance(_method, FunctionType) and not _name.startswith("_") and _name not in ("close", "wait_server_ready"):
        setattr(_PatientProxy, _name, patient(_method, _away, lambda storage: storage.url))

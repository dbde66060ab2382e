"""Processes of this machine: is one still there, and is it the one that is meant? The system uses numbers again.

Linux says when a process was started. Windows and macOS say only whether it is there.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether there is a process of this number, of whatever user."""
    if sys.platform == "win32":  # there os.kill ends the process, whatever the signal
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:
        return False
    return True


def _is_running_on_windows(pid: int) -> bool:
    import ctypes

    query, still_active, access_denied = 0x1000, 259, 5  # as the Windows API names and numbers them
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(query, False, pid)
    if not handle:
        return bool(ctypes.get_last_error() == access_denied)  # type: ignore[attr-defined,unused-ignore]
    code = ctypes.c_ulong()
    asked = kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code))
    kernel.CloseHandle(ctypes.c_void_p(handle))
    return not asked or code.value == still_active


def process_start(pid: int) -> int | None:
    """When a process was started, in clock ticks since the machine started. None if the process is gone, or dead and
    not yet collected by its parent, or if the system does not say."""
    try:
        # The second field is the program's name in brackets, and may itself hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def this_host() -> str:
    """The host, and the numbering of processes on it: containers may share a host name but not process numbers."""
    try:
        space = os.readlink("/proc/self/ns/pid")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{boot[:8]}/{space}"

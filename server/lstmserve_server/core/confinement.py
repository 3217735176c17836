"""Confines a process that reads untrusted files: bounded resources, few files, no network, no other programs.

Such a process is treated as compromised. Each mechanism of the kernel holds by itself, and one that the kernel lacks is skipped:
`confine` returns those that hold. None needs privileges, so all of them work in an unprivileged container:
docs/decisions/confinement.md.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import TYPE_CHECKING, Final

import landlockpy
import seccompy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SET_NO_NEW_PRIVS: Final = 38  # prctl(2), PR_SET_NO_NEW_PRIVS
_CLONE_THREAD: Final = 0x10000  # clone(2)

# A library is mapped for execution.
_READ: Final = landlockpy.AccessFS.READ_FILE | landlockpy.AccessFS.READ_DIR | landlockpy.AccessFS.EXECUTE
_WRITE: Final = (
    landlockpy.AccessFS.WRITE_FILE
    | landlockpy.AccessFS.TRUNCATE
    | landlockpy.AccessFS.MAKE_REG
    | landlockpy.AccessFS.MAKE_DIR
    | landlockpy.AccessFS.MAKE_SYM
    | landlockpy.AccessFS.REMOVE_FILE
    | landlockpy.AccessFS.REMOVE_DIR
)

# Where Python, its packages and the system's libraries lie, and what they look at. Nothing else of /etc: secrets lie there.
_SYSTEM: Final = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/proc/self",  # not those of other processes, whose environments hold secrets
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
)

_KEPT: Final = (
    "LANG LANGUAGE LC_ALL LC_CTYPE LD_LIBRARY_PATH MALLOC_ARENA_MAX PATH PYTHONHASHSEED PYTHONPATH TMPDIR TZ "
    "OPENBLAS_CORETYPE OPENBLAS_L2_SIZE"
).split()

_FORBIDDEN: Final = (
    "socket socketpair connect bind listen accept accept4 io_uring_setup "  # the network
    "execve execveat fork vfork "  # other programs and processes
    "ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal tkill rt_sigqueueinfo rt_tgsigqueueinfo "
    "mount umount2 pivot_root chroot unshare setns open_by_handle_at "
    "bpf perf_event_open userfaultfd keyctl add_key request_key kexec_load init_module finit_module delete_module "
    "reboot swapon swapoff acct quotactl"
).split()


def environment(**added: str) -> dict[str, str]:
    """Returns the environment for such a process: what Python needs of ours, without our secrets, and what is `added`."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | added


def limit(bounds: Mapping[int, int]) -> None:
    """Bounds resources (RLIMIT_...), each as far as this process may raise it."""
    for kind, amount in bounds.items():
        _, most = resource.getrlimit(kind)
        bound = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(kind, (bound, bound))


def confine(readable: Iterable[str | os.PathLike[str]], writable: Iterable[str | os.PathLike[str]] = ()) -> list[str]:
    """Drops what this process and its future threads do not need. Call it before other threads exist.

    Args:
        readable: files and folders that it reads, in addition to Python and the system's libraries.
        writable: folders in which it writes.

    Returns:
        What the kernel holds: some of "no_new_privs", "landlock" and "seccomp".
    """
    held = []
    has_seccomp = seccompy.supported()  # first: it finds the C library by a program, which is forbidden afterwards
    if ctypes.CDLL(None).prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        held.append("no_new_privs")
    if landlockpy.abi_version():
        _restrict_files(readable, writable)
        held.append("landlock")
    if has_seccomp and _filter_calls():
        held.append("seccomp")
    return held


def _restrict_files(readable: Iterable[str | os.PathLike[str]], writable: Iterable[str | os.PathLike[str]]) -> None:
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    with landlockpy.Ruleset(scoped=landlockpy.Scope.ABSTRACT_UNIX_SOCKET | landlockpy.Scope.SIGNAL) as rules:
        for path in {*_SYSTEM, *filter(None, python), *(str(path) for path in readable)}:
            _allow(rules, path, _READ)
        for folder in writable:
            _allow(rules, str(folder), _READ | _WRITE)
        rules.restrict()


def _allow(rules: landlockpy.Ruleset, path: str, access: landlockpy.AccessFS) -> None:
    """Allows access to a file, or to a folder and what is in it; none where there is no such path."""
    try:
        of_folders = landlockpy.AccessFS.READ_DIR | _WRITE & ~(
            landlockpy.AccessFS.WRITE_FILE | landlockpy.AccessFS.TRUNCATE
        )
        rules.allow_path(path, access if os.path.isdir(path) else access & ~of_folders)  # noqa: PTH112 - bytes of any kind
    except (OSError, ValueError, landlockpy.LandlockError):
        return


def _filter_calls() -> bool:
    """Has the kernel refuse system calls that only a compromised process needs; returns whether it does."""
    try:
        calls = seccompy.Filter(default=seccompy.Action.ALLOW)
        for name in _FORBIDDEN:
            if _exists(name):
                calls.errno(name, 1)  # EPERM
        own = os.getpid()
        for name in ("kill", "tgkill"):  # to itself: abort(3)
            calls.errno(name, 1, args=[seccompy.ArgCmp(0, seccompy.CmpOp.NE, own)])
        calls.errno("prlimit64", 1, args=[seccompy.ArgCmp(0, seccompy.CmpOp.NE, 0)])
        calls.errno("clone", 1, args=[seccompy.ArgCmp(0, seccompy.CmpOp.MASKED_EQ, 0, mask=_CLONE_THREAD)])
        calls.errno("clone3", 38)  # ENOSYS: its flags cannot be seen, and then the C library calls clone
        calls.load()
    except (OSError, seccompy.SeccompError):
        return False
    return True


def _exists(name: str) -> bool:
    try:
        seccompy.syscall_nr(name)
    except (KeyError, ValueError, seccompy.SeccompError):  # of another architecture
        return False
    return True

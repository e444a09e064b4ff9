"""Names the limit behind an exception that a plugin raised. Standard library only; used in hosts, on hostile objects.

The other limits are named by who enforces them: hotswap.runtime.exits (CPU_LIMIT, DIED), handle (TIMEOUT, BAD_REPLY),
output (OUTPUT_LIMIT), host_server (REPLY_TOO_LARGE). docs/isolation.md lists all.
"""

import errno

_OF_ERRNO = {
    errno.ENOMEM: "MEMORY_LIMIT",
    errno.EMFILE: "FILE_LIMIT",
    errno.ENOSPC: "SCRATCH_LIMIT",
    errno.EFBIG: "SCRATCH_LIMIT",
    errno.EDQUOT: "SCRATCH_LIMIT",
}
_NO_THREAD = "can't start new thread"
_SQLITE_FULL = 13

WORDS = {
    "MEMORY_LIMIT": "the plugin ran out of memory",
    "FILE_LIMIT": "the plugin has used up its limit of open files",
    "PROCESS_LIMIT": "the plugin has used up its limit of processes and threads",
    "SCRATCH_LIMIT": "the plugin has filled its scratch directory",
}


def limit_of(fault: BaseException) -> str:
    """A name of WORDS, or "". Never raises, whatever the fault's own code does when it is looked at."""
    kind = type(fault)
    if issubclass(kind, MemoryError):
        return "MEMORY_LIMIT"
    if issubclass(kind, OSError):
        number = vars(OSError)["errno"].__get__(fault)  # the slot itself
        return _OF_ERRNO.get(number, "") if type(number) is int else ""
    arguments = vars(BaseException)["args"].__get__(fault)
    if kind is RuntimeError and arguments == (_NO_THREAD,):
        return "PROCESS_LIMIT"
    try:
        full = kind.__module__ == "sqlite3" and getattr(fault, "sqlite_errorcode", 0) == _SQLITE_FULL
    except BaseException:  # noqa: BLE001 - it may raise anything, and here it would cost a thread of the host
        full = False
    return "SCRATCH_LIMIT" if full else ""

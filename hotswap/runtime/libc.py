"""The few C library calls Python does not offer, with 64-bit arguments. Standard library only; used by the sandbox."""

import ctypes
import errno


class Libc:
    """One handle on the C library; make it once in the zygote, so that a forked child pays nothing."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._library.syscall.restype = ctypes.c_long
        self._library.prctl.restype = ctypes.c_int
        # For clone: keeps the interpreter's lock, which the child must find as its parent left it.
        self._locked = ctypes.PyDLL(None, use_errno=True)
        self._locked.syscall.restype = ctypes.c_long

    def syscall(self, number: int, *arguments: int | bytes | None) -> int:
        """The raw result; -1 on failure, with `errno_name` telling why."""
        return int(self._library.syscall(ctypes.c_long(number), *(_wide(argument) for argument in arguments)))

    def clone(self, number: int, flags: int) -> int:
        """fork(2) with namespace flags: 0 in the child, -1 on failure. `number` is this machine's clone.

        The C library does not know of it, so a child may do little more than system calls and one real os.fork.
        """
        return int(self._locked.syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in (flags, 0, 0, 0, 0))))

    def prctl(self, option: int, *arguments: int | bytes) -> int:
        padded = (*arguments, 0, 0, 0, 0)[:4]
        return int(self._library.prctl(ctypes.c_int(option), *(_wide(argument) for argument in padded)))


def _wide(argument: int | bytes | None) -> ctypes.c_long | ctypes.c_char_p:
    """A bare int would be passed as 32 bits, leaving the rest of the register to chance."""
    return ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_char_p(argument)


def errno_name() -> str:
    """The last failure's name, such as EPERM."""
    number = ctypes.get_errno()
    return errno.errorcode.get(number, str(number))

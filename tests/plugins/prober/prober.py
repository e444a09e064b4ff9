"""A plugin that tries to get out of its sandbox in every way its author could think of. Each attempt raises, or escaped."""
# It speaks to the system as an attacker would, so its style is not ours:
# ruff: noqa

import ctypes
import fcntl
import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import threading

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_HERE = os.path.dirname(__file__)
_X86 = os.uname().machine == "x86_64"


def _raw(number, *arguments):
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if _libc.syscall(ctypes.c_long(number), *wide) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _sockets():
    """The channel to the node and the event loop's own pair."""
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield fd
        except OSError:
            continue


def _channel():
    return next(_sockets())


def _socket(family, kind, protocol=0):
    return lambda: socket.socket(family, kind, protocol).close()


def _fork():
    if os.fork() == 0:
        os._exit(0)


def _send_to_path():
    _raw(44, _channel(), b"x", 1, 0, struct.pack("=H", 1) + b"/run/systemd/notify\0", 22)


def _every_socket():
    """One attempt for each address family there is, all kinds of socket in turn."""
    families = {int(family): family.name for family in socket.AddressFamily}
    for number in range(46):
        name = families.get(number, f"AF {number}")
        yield f"open a socket of {name}", lambda number=number: _any_kind(number)


def _any_kind(family):
    refusal = None
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind, 0).close()
        except OSError as fault:
            refusal = fault
        else:
            return
    raise refusal


def _hidden(true_when_hidden, what):
    """What is no call that could fail, but a fact that could be seen."""
    if true_when_hidden:
        raise PermissionError(f"Operation not permitted: {what} is hidden")


def _glimpses(neighbour):
    """What gives no hold on anything, but tells about the node. Tier standard leaves these open (docs/isolation.md)."""
    return {
        "see that a file is there": lambda: os.stat("/etc/passwd"),
        "see where a link leads": lambda: os.readlink("/proc/self/exe"),
        "go to a directory outside": lambda: (os.chdir("/var/lib"), os.chdir(_HERE)),
        "see its parent's pid": lambda: _hidden(os.getppid() == 1, "the parent's pid"),
        "see that a process is there": lambda: os.getpgid(neighbour["pid"]),
        "see a process's processors": lambda: os.sched_getaffinity(neighbour["pid"]),
        "see the node's host name": lambda: _hidden(os.uname().nodename == "plugin", "the host name"),
    }


def _against(neighbour):
    """Attempts at another plugin's host and files, and at the zygote that made both."""
    pid, bundle = neighbour["pid"], neighbour["bundle"]
    return {
        "list another's bundle": lambda: os.listdir(bundle),
        "read another's code": lambda: open(os.path.join(bundle, "made.py")).read(1),
        "write another's code": lambda: open(os.path.join(bundle, "made.py"), "r+").close(),
        "write into another's bundle": lambda: open(os.path.join(bundle, "new.py"), "w").close(),
        "remove another's code": lambda: os.unlink(os.path.join(bundle, "made.py")),
        "import another's code": lambda: _import_from(bundle),
        "reach it by its root": lambda: os.listdir(f"/proc/{pid}/root"),
        "reach it by its directory": lambda: os.listdir(f"/proc/{pid}/cwd"),
        "read another's environ": lambda: open(f"/proc/{pid}/environ").read(1),
        "read another's maps": lambda: open(f"/proc/{pid}/maps").read(1),
        "read another's memory file": lambda: open(f"/proc/{pid}/mem", "rb").read(1),
        "write another's memory file": lambda: open(f"/proc/{pid}/mem", "r+b").close(),
        "list another's descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
        "open another's descriptor": lambda: open(f"/proc/{pid}/fd/1", "w").close(),
        "kill another": lambda: os.kill(pid, signal.SIGKILL),
        "stop another": lambda: os.kill(pid, signal.SIGSTOP),
        "kill another's group": lambda: os.killpg(pid, signal.SIGKILL),
        "hold another by pidfd": lambda: os.pidfd_open(pid),
        "renice another": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "limit another": lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)),
        "list all processes": lambda: os.listdir("/proc"),
        "list the zygote's descriptors": lambda: os.listdir(f"/proc/{neighbour['zygote']}/fd"),
        "kill the zygote": lambda: os.kill(neighbour["zygote"], signal.SIGKILL),
        "leave through its own root": lambda: os.listdir("/proc/self/root"),
        "leave by dot-dot": lambda: os.listdir("../" * 32),
        "read a disk": lambda: open("/dev/vda", "rb").read(1),
        "write the kernel's settings": lambda: open("/proc/sys/kernel/core_pattern", "w").close(),
        "read the kernel's messages": lambda: open("/dev/kmsg").read(1),
        "move to another cgroup": lambda: open("/sys/fs/cgroup/cgroup.procs", "w").close(),
    }


def _import_from(bundle):
    import importlib.util

    spec = importlib.util.spec_from_file_location("stolen", os.path.join(bundle, "made.py"))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _attempts(neighbour=None):
    parent = os.getppid()
    neighbour = neighbour or {"pid": parent, "zygote": parent, "bundle": os.path.dirname(_HERE)}
    own = os.path.join(_HERE, "prober.py")
    unix_stream, unix_datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    attempts = {
        "read /etc/passwd": lambda: open("/etc/passwd").read(1),
        "read /etc/shadow": lambda: open("/etc/shadow").read(1),
        "read its own environ": lambda: open("/proc/self/environ").read(1),
        "read its parent's environ": lambda: open(f"/proc/{parent}/environ").read(1),
        "read its parent's memory": lambda: open(f"/proc/{parent}/mem", "rb").read(1),
        "read pid 1's command line": lambda: open("/proc/1/cmdline").read(1),
        "list /": lambda: os.listdir("/"),
        "list /tmp": lambda: os.listdir("/tmp"),
        "list beside the bundle": lambda: os.listdir(os.path.dirname(_HERE)),
        "write to /tmp": lambda: open(f"/tmp/escaped-{os.getpid()}", "w").close(),
        "write to /dev/shm": lambda: open(f"/dev/shm/escaped-{os.getpid()}", "w").close(),
        "write into the bundle": lambda: open(os.path.join(_HERE, "new.py"), "w").close(),
        "overwrite its code": lambda: open(own, "r+b").close(),
        "truncate its code": lambda: os.truncate(own, 0),
        "remove its code": lambda: os.unlink(own),
        "rename its code": lambda: os.rename(own, own + "x"),
        "make a directory": lambda: os.mkdir(os.path.join(_HERE, "new")),
        "make a symbolic link": lambda: os.symlink("/", os.path.join(_HERE, "root")),
        "make a hard link": lambda: os.link(own, own + ".link"),
        "make a pipe in the file system": lambda: os.mkfifo(os.path.join(_HERE, "pipe")),
        "change a mode": lambda: os.chmod(own, 0o777),
        "change an owner": lambda: os.chown(own, os.getuid(), os.getgid()),
        "change a time": lambda: os.utime(own),
        "change an attribute": lambda: os.setxattr(own, "user.x", b"x"),
        "open a TCP socket": _socket(socket.AF_INET, socket.SOCK_STREAM),
        "open a UDP socket": _socket(socket.AF_INET, socket.SOCK_DGRAM),
        "open an MPTCP socket": _socket(socket.AF_INET, socket.SOCK_STREAM, 262),
        "open a TCP6 socket": _socket(socket.AF_INET6, socket.SOCK_STREAM),
        "open a unix stream": _socket(socket.AF_UNIX, unix_stream),
        "open a unix datagram": _socket(socket.AF_UNIX, unix_datagram),
        "open a netlink socket": _socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "open a packet socket": _socket(socket.AF_PACKET, socket.SOCK_RAW),
        "open a vsock": _socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        "make a datagram pair": lambda: socket.socketpair(socket.AF_UNIX, unix_datagram),
        "make a packet pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        "resolve a name": lambda: __import__("_socket").getaddrinfo("example.com", 80),  # below the host's own words
        "send descriptors": lambda: socket.send_fds(socket.socket(fileno=os.dup(_channel())), [b"x"], [0]),
        "fork": _fork,
        "run a program": lambda: subprocess.run(["/bin/true"], check=False),
        "spawn a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "become a program": lambda: os.execv("/bin/true", ["true"]),
        "signal its parent": lambda: os.kill(parent, 0),
        "signal pid 1": lambda: os.kill(1, 0),
        "signal everybody": lambda: os.kill(-1, 0),
        "signal its group": lambda: os.killpg(0, 0),
        "open a pidfd": lambda: os.pidfd_open(parent),
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
        "lower a limit of its parent": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (16, 16)),
        "read a limit of its parent": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
        "make a memory file": lambda: os.memfd_create("x"),
        "become root": lambda: os.setuid(0),
        "change its groups": lambda: os.setgroups([0]),
        "change root": lambda: os.chroot("/"),
        "leave its session": os.setsid,
        "renice its parent": lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
        "pin its parent": lambda: os.sched_setaffinity(parent, {0}),
        "own the channel's signals": lambda: fcntl.fcntl(_channel(), fcntl.F_SETOWN, parent),
        "ask for signals on input": lambda: fcntl.ioctl(_channel(), 0x5452, b"\1\0\0\0"),
        "push terminal input": lambda: fcntl.ioctl(0, 0x5412, b"x"),
    }
    attempts |= dict(_every_socket()) | _against(neighbour)
    if _X86:
        attempts |= {
            "read a neighbour's memory": lambda: _raw(310, neighbour["pid"], b"\0" * 16, 1, b"\0" * 16, 1, 0),
            "write a neighbour's memory": lambda: _raw(311, neighbour["pid"], b"\0" * 16, 1, b"\0" * 16, 1, 0),
            "trace a neighbour": lambda: _raw(101, 16, neighbour["pid"], 0, 0),
            "take a neighbour's descriptor": lambda: _raw(438, 0, 1, 0),
            "truncate by path": lambda: _raw(76, own.encode(), 0),
            "send to a path": _send_to_path,
            "clone a process": lambda: _raw(56, signal.SIGCHLD, 0, 0, 0, 0),
            "clone3": lambda: _raw(435, b"\0" * 88, 88),
            "vfork": lambda: _raw(58),
            "execveat": lambda: _raw(322, -100, b"/bin/true", 0, 0, 0),
            "openat2": lambda: _raw(437, -100, b"/etc/passwd", b"\0" * 24, 24),
            "tgkill its parent": lambda: _raw(234, parent, parent, 0),
            "tkill its parent": lambda: _raw(200, parent, 0),
            "queue a signal": lambda: _raw(129, parent, 0, b"\0" * 128),
            "ptrace": lambda: _raw(101, 0x4206, parent, 0, 0),
            "read another's memory": lambda: _raw(310, parent, b"\0" * 16, 1, b"\0" * 16, 1, 0),
            "compare processes": lambda: _raw(312, parent, os.getpid(), 0, 0, 0),
            "io_uring": lambda: _raw(425, 1, ctypes.create_string_buffer(120)),
            "bpf": lambda: _raw(321, 0, b"\0" * 128, 128),
            "keyctl": lambda: _raw(250, 0, -3, 0),
            "add a key": lambda: _raw(248, b"user", b"x", b"x", 1, -3),
            "perf_event_open": lambda: _raw(298, b"\0" * 128, 0, -1, -1, 0),
            "userfaultfd": lambda: _raw(323, 1),
            "unshare": lambda: _raw(272, 0x10000000),
            "setns": lambda: _raw(308, 0, 0),
            "mount": lambda: _raw(165, b"none", b"/tmp", b"tmpfs", 0, 0),
            "new mount": lambda: _raw(430, b"tmpfs", 0),
            "open by handle": lambda: _raw(304, -100, b"\0" * 16, 0),
            "shared memory": lambda: _raw(29, 0, 4096, 0o1600),
            "semaphore": lambda: _raw(64, 0, 1, 0o1600),
            "message queue": lambda: _raw(68, 0, 0o1600),
            "POSIX message queue": lambda: _raw(240, b"x", os.O_CREAT | os.O_RDWR, 0o600, 0),
            "inotify": lambda: _raw(294, 0),
            "fanotify": lambda: _raw(300, 0, 0),
            "outlive its parent": lambda: _raw(157, 1, 0, 0, 0, 0),
            "become dumpable": lambda: _raw(157, 4, 1, 0, 0, 0),
            "another seccomp filter": lambda: _raw(317, 0, 0, 0),
            "io ports": lambda: _raw(173, 0, 1, 1),
            "kernel log": lambda: _raw(103, 10, 0, 0),
            "host name": lambda: _raw(170, b"escaped", 7),
            "personality": lambda: _raw(135, 0x0040000),
            "splice": lambda: _raw(275, 0, 0, 1, 0, 1, 0),
            "capset": lambda: _raw(126, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", 1, 1, 0, 0, 0, 0)),
        }
    return attempts


def _allowed():
    """What a plain library may well do."""
    import asyncio
    import decimal
    import sqlite3
    import zoneinfo

    done = {"sqlite": sqlite3.connect(":memory:").execute("select 1").fetchone()[0]}
    done["asyncio"] = asyncio.run(asyncio.sleep(0, "ran"))
    done["zone"] = zoneinfo.ZoneInfo("Europe/Berlin").key
    done["random"] = len(os.urandom(8))
    done["decimal"] = str(decimal.Decimal(1) / 3)[:5]
    done["own file"] = open(os.path.join(_HERE, "prober.py")).read(3)
    done["relative file"] = open("prober.py").read(3)
    done["null"] = open("/dev/null", "w").write("gone")
    thread = threading.Thread(target=lambda: done.__setitem__("thread", True))
    thread.start()
    thread.join()
    return done


class Prober:
    def attempts(self, parameters, context):
        return list(_attempts())

    def glimpses(self, parameters, context):
        return list(_glimpses({}))

    def escape(self, parameters, context):
        """ "" when it succeeded, else how it was refused."""
        try:
            neighbour = parameters.get("neighbour")
            (_attempts(neighbour) | _glimpses(neighbour))[parameters["attempt"]]()
        except Exception as refusal:
            return f"{type(refusal).__name__}: {refusal}"
        return ""

    def allowed(self, parameters, context):
        return _allowed()

    def foreign_call(self, parameters, context):
        _raw(0x40000000 | 39)  # getpid in the x32 convention

    def forge(self, parameters, context):
        """Write raw bytes into the channel, beside the host's own frames."""
        for fd in list(_sockets()):
            os.write(fd, bytes.fromhex(parameters["bytes"]))
        threading.Event().wait()

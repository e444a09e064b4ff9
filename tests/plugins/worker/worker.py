"""A plugin that does what a test tells it to: answers, waits, fails, eats memory, shouts, dies."""

import asyncio
import os
import signal
import sys
import threading
import time

print("worker was imported")


class Refused(Exception):
    """The plugin's own fault."""


class Worker:
    def echo(self, parameters, context):
        return parameters

    async def echo_async(self, parameters, context):
        return parameters

    def sleep(self, parameters, context):
        time.sleep(parameters["seconds"])
        return "slept"

    async def sleep_async(self, parameters, context):
        await asyncio.sleep(parameters["seconds"])
        return "slept"

    def fail(self, parameters, context):
        raise Refused(parameters["message"])

    async def fail_async(self, parameters, context):
        raise SystemExit(parameters["message"])

    def context(self, parameters, context):
        return [context.tenant, context.plugin, context.version, context.deadline - time.monotonic()]

    def reply(self, parameters, context):
        return {"object": object(), "nan": float("nan"), "coroutine": self.echo_async({}, None)}.get(
            parameters["what"], "x" * parameters.get("bytes", 0)
        )

    def eat(self, parameters, context):
        kept = []
        while True:
            kept.append(bytearray(8 * 1024 * 1024))

    def shout(self, parameters, context):
        for number in range(parameters["lines"]):
            print(f"line {number} " + "x" * 200)
        os.write(2, b"raw\x1b[31m\xff to stderr\n")
        return "shouted"

    def leave(self, parameters, context):
        how = parameters["how"]
        if how == "exit":
            os._exit(7)
        if how == "segfault":
            signal.raise_signal(signal.SIGSEGV)
        os.closerange(3, 64)  # "hang up": the channel closes, the process goes on
        time.sleep(60)

    def burn(self, parameters, context):
        if parameters.get("stubborn"):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXCPU])
        while True:
            pass

    async def spin(self, parameters, context):
        """Hold the event loop itself: the host sees nothing that is said to it any more."""
        while True:
            pass

    def environment(self, parameters, context):
        return {"environment": dict(os.environ), "path": sys.path, "uid": os.getuid(), "argv": sys.argv}

    def threads(self, parameters, context):
        started = 0
        release = threading.Event()
        try:
            while started < parameters["most"]:
                threading.Thread(target=release.wait, daemon=True).start()
                started += 1
        except RuntimeError:
            pass
        finally:
            release.set()
        return started

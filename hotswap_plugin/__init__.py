"""What the author of a HotSwap plugin imports. Every plugin host has it: it need not be packed into a bundle.

Pure Python, standard library only. docs/plugins.md is the guide; hotswap.runtime is the other side. hotswap_plugin.testing
runs a plugin on the author's machine under the sandbox that nodes use.
"""

from hotswap_plugin.context import Context
from hotswap_plugin.hooks import Plugin, Unhealthy
from hotswap_plugin.logs import get_logger
from hotswap_plugin.settings import Secrets

__all__ = ["Context", "Plugin", "Secrets", "Unhealthy", "get_logger"]

"""The files of `hotswap plugin init`: a plugin that builds, passes its smoke test and says where to go on.

Neighbour: hotswap.runtime.build offers `init_plugin` beside `build_plugin`.
"""

import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hotswap.domain.base import PluginName
from hotswap.domain.errors import FieldFault, InvalidInput
from hotswap.domain.wording import PLUGIN_NAME_RULE

_MANIFEST = """\
# What HotSwap must know about this plugin. An unknown key is an error that names it.
name = "{name}"
version = "0.1.0"
entryPoint = "{module}:{class_name}"
requires-python = ">=3.11"
author = ""
description = "Greets people. Replace it with what your plugin does."
type = "Other"
# What it needs beyond its own process, e.g. ["network.http:api.example.com", "secrets.read"].
requiredPermissions = []

[[methods]]
name = "greet"
idempotent = true  # may be called twice for one request

[methods.parameters]  # JSON Schema
type = "object"
required = ["name"]
additionalProperties = false
properties.name = {{ type = "string", minLength = 1, maxLength = 100 }}

[methods.result]
type = "object"
required = ["greeting"]
properties.greeting = {{ type = "string" }}

# What a tenant may configure: JSON Schema. Where a tenant says nothing the defaults hold.
[configurationSchema]
type = "object"
additionalProperties = false
properties.salutation = {{ type = "string", minLength = 1, maxLength = 40, default = "Hello" }}

# What one process of this plugin may use.
[resources]
memoryMb = 256
cpuSeconds = 30

# Run in the sandbox before any tenant's traffic. Write one for each thing that must never break.
[[smokeTests]]
method = "greet"
parameters = {{ name = "Ada" }}
expected = {{ greeting = "Hello, Ada!" }}
"""

_CODE = '''\
"""The plugin {name}. One object of {class_name} lives in each host process and serves many tenants."""

from typing import Any

from hotswap_plugin import Context, get_logger  # every host has it; nothing to pack

log = get_logger("{name}")


class {class_name}:
    """Constructed without arguments, once for each process. Expensive set-up belongs into __init__."""

    def greet(self, parameters: dict[str, Any], context: Context) -> dict[str, Any]:
        """A method of the manifest. `context` has tenant, config, secrets, seconds_left, trace_id and more.

        Return what json.dumps takes; raise to fail the request. Write `async def` if it waits for something.
        """
        log.debug("greeting somebody")  # bound to tenant and trace; never log what is somebody's
        return {{"greeting": f"{{context.config['salutation']}}, {{parameters['name']}}!"}}

    def health(self) -> bool:
        """Asked by probes. False, or an exception, counts against this version."""
        return True
'''

_REQUIREMENTS = """\
# Libraries to pack into the bundle: pinned, pure Python, transitive ones too. For instance:
# markdown-it-py==4.0.0 --hash=sha256:...
"""

_README = """\
# {name}

A HotSwap plugin.

- `plugin.toml`: name, version, methods, limits, smoke tests.
- `{module}.py`: the code.
- `requirements.txt`: pinned libraries; the build packs them into `vendor/`.

```
hotswap plugin test .           # runs the smoke tests here, in the sandbox that nodes use
hotswap plugin build .          # makes dist/{name}-0.1.0.zip; the same input always gives the same bytes
hotswap plugin push .           # uploads it as version 0.1.0
hotswap deploy {name} 0.1.0 --environment Development --watch
```

A version is immutable: change `version` in `plugin.toml` before the next push. `tests/`, hidden files and `dist/` stay
out of the bundle.
"""


def init_plugin(folder: Path, name: str) -> None:
    """Write a plugin that builds and runs as it is into `folder`, made if need be.

    Raises InvalidInput when `name` is no plugin name or `folder` holds something; nothing is written then.
    """
    try:
        TypeAdapter(PluginName).validate_python(name)
    except ValidationError:
        raise InvalidInput(
            f"'{name[:80]}' is not a plugin name",
            [FieldFault("name", PLUGIN_NAME_RULE)],
        ) from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is not empty", [FieldFault("folder", "name a new or an empty folder")])
    words = re.split(r"-+", name)
    # The suffix keeps the module from hiding one of the standard library, as a plugin called 'json' would.
    module = f"{'p_' if name[0].isdigit() else ''}{'_'.join(words)}_plugin"
    class_name = f"{'P' if name[0].isdigit() else ''}{''.join(word.capitalize() for word in words)}"
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, text in {
        "plugin.toml": _MANIFEST,
        f"{module}.py": _CODE,
        "requirements.txt": _REQUIREMENTS,
        "README.md": _README,
    }.items():
        filled = text if text is _REQUIREMENTS else text.format(name=name, module=module, class_name=class_name)
        (folder / file_name).write_text(filled, encoding="utf-8")

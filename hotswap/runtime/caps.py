"""What a manifest may ask for here: its `resources` against the platform's caps (HOTSWAP_SANDBOX__MAX_...). Pure.

An upload and a trial refuse a manifest that asks for more (`above`): silently given less, the plugin would fail later and
in front of tenants. A node gives what its caps allow (`capped`): a cap that was lowered since must not keep a version
from starting again that already serves.
"""

from hotswap.config import SandboxSettings
from hotswap.domain.errors import FieldFault
from hotswap.domain.manifest import Resources

_CAP_OF = {
    "memory_mb": "max_memory_mb",
    "cpu_seconds": "max_cpu_seconds",
    "processes": "max_processes",
    "open_files": "max_open_files",
    "scratch_mb": "max_scratch_mb",
}


def above(resources: Resources, caps: SandboxSettings) -> list[FieldFault]:
    """Every resource that is over its cap, with what to do about it."""
    faults = []
    for name, cap_name in _CAP_OF.items():
        asked, cap = getattr(resources, name), getattr(caps, cap_name)
        if asked > cap:
            field = f"resources.{Resources.model_fields[name].alias}"
            remedy = f"ask for less, or have HOTSWAP_SANDBOX__{cap_name.upper()} raised"
            faults.append(FieldFault(field, f"asks for {asked}; this platform allows {cap}: {remedy}"))
    return faults


def capped(resources: Resources, caps: SandboxSettings) -> Resources:
    """The same, with nothing over its cap."""
    return resources.model_copy(
        update={name: min(getattr(resources, name), getattr(caps, cap)) for name, cap in _CAP_OF.items()}
    )

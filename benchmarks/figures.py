"""How every benchmark speaks: one JSON object a line and a figure (design section 9)."""

import json
import os
import platform


def figure(name: str, value: float, unit: str, n: int, against: str) -> None:
    """Print one figure. `against` says what a ratio is a ratio to, '' for a plain figure."""
    machine = f"{os.cpu_count()} cores, python {platform.python_version()}"
    line = {"figure": name, "value": round(value, 4), "unit": unit, "n": n, "against": against, "machine": machine}
    print(json.dumps(line), flush=True)

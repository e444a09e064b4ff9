"""The plugin's method as people serve it without HotSwap: a FastAPI application. Started by benchmarks.rivals."""

from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.post("/invoke/{tenant}/invoice/echo")
async def echo(tenant: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"version": "1.0.0", "tenant": tenant, "echo": parameters}

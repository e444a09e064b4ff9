"""The yardstick of benchmarks.api: a bare FastAPI route that does one primary-key select and answers the row.

No token, no limit, no trace, no envelope; the same server, loop, engine and row as the facade's. Run by benchmarks.api:
`python -m benchmarks.api_floor PORT`, the database's address in HOTSWAP_POSTGRES__URL.
"""

import os
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from hotswap.adapters.postgres.url import engine_url

app = FastAPI()
engine = create_async_engine(engine_url(os.environ["HOTSWAP_POSTGRES__URL"]), pool_size=10)
BY_KEY = text("SELECT plugin_id, display_name, description, type, status, tags FROM plugins WHERE plugin_id = :key")


@app.get("/plugins/{key}")
async def get_plugin(key: str) -> dict[str, Any]:
    async with engine.connect() as connection:
        row = (await connection.execute(BY_KEY, {"key": key})).one()
    return dict(row._mapping)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", log_level="warning", access_log=False)

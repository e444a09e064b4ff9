"""Temporal's payloads as protobuf's JSON writes them: the codec protocol of its Web UI and CLI."""

from pydantic import BaseModel, ConfigDict, Field


class PayloadJson(BaseModel):
    """Values are base64. Newer servers may send more; it is not needed to decrypt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    metadata: dict[str, str] = Field(default_factory=dict)
    data: str = ""


class PayloadsJson(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    payloads: list[PayloadJson] = Field(default_factory=list, max_length=10_000)

"""What a host and its node say about connections: one JSON object a SOCK_SEQPACKET record. Standard library only.

Ask: {"id", "host", "port", "timeout"} (seconds; 0 = as long as the node allows). Answer: {"id", "fault", "message"}, with the
connected socket by SCM_RIGHTS when `fault` is "". Neighbours: hotswap.runtime.egress answers, egress_client asks.
"""

MAX_ASK_BYTES = 1024
MAX_ANSWER_BYTES = 4096

FAULTS = ("permission", "name", "refused", "timeout", "limit")

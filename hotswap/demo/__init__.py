"""The demo: HotSwap's promise told on real parts, and the traffic generator that tests and benchmarks share."""

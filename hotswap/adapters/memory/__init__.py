"""In-memory twins of the adapters, for tests: same contracts, nothing outside the process."""

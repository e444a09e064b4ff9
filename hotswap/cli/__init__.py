"""The command line: an HTTP client of the api. It never talks to Temporal, a database or a node."""

"""The port hotswap.ports.records on PostgreSQL: database, unit of work, one store a table group, faults in one place."""

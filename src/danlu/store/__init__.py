"""The database: the only place with SQL. Plain functions per noun take a connection and return frozen domain objects."""

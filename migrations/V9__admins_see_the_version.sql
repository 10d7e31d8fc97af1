-- Who replays dead letters or a stretch of a topic loads events too: the binary looks first whether it knows the schema.
GRANT SELECT ON loader.schema_history TO tidemark_admin;

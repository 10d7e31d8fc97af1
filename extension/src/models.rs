//! What models need beyond SQL: the rewriting of their queries, and running them as the owner of their table.

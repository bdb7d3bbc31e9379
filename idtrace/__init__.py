"""What an identifier, a record and a proof are: shared by registries, resolvers and verifiers."""

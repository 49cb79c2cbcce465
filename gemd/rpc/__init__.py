"""The gRPC face of the daemon: thin servicers over routing, residency and the store.

`convert` is the only place where messages of the API and the daemon's own values meet,
`status` the only one where errors become gRPC statuses.
"""

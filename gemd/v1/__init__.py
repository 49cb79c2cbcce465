"""The gRPC API of gemd: stubs generated from `proto/gemd/v1` by `proto/generate.py`."""

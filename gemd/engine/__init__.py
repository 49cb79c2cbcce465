"""The daemon's side of a worker process: start it, talk to it, end it."""

"""The worker process: one model, one engine, one channel to the daemon that started it."""

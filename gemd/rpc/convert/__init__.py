"""Messages of the API from and to the daemon's own values; nothing else converts."""

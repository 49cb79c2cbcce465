"""`gemctl batch`: a file of short jobs, answered in the background and written in its order.

`jobs` reads and checks the file, `order` says who runs beside whom, `results` keeps what is
done, `running` asks the daemon, and `command` puts them together.
"""

from gemd.cli.batch.command import batch

__all__ = ["batch"]

"""`gemctl service`: gemd under systemd or launchd, as a service of the user.

`job` says what is started and with which variables, `render` writes it into the templates,
`files` puts the result in its place and takes it away again, `systemd` and `launchd` talk to the
managers, `here` picks one of them, `standing` shows what it says, and `command` puts them
together. `preferred` is for the other commands: it starts the service where they need a daemon.
"""

from gemd.cli.service.command import service

__all__ = ["service"]

"""The daemon: holds what every device should run, serves it, and remembers what devices say."""

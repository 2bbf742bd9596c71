"""The ground: what daemon, agent, command line and tests must agree on."""

__version__ = "0.1.0"

"""The command line: sees and changes what devices should run."""

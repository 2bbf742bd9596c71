"""What may happen, in which order: rules stand on store and hub and know neither HTTP nor sockets."""

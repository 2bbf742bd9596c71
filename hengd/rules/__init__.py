"""The rules: what may happen, in which order, whoever asks."""

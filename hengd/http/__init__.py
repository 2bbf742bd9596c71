"""The daemon's faces: thin handlers, one file a resource."""

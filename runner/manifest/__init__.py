"""What people write: manifests, read with their lines and columns, checked whole, expanded lazily. Pure."""

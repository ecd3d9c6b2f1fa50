//! Model names to files on this machine: hub downloads and the shared cache.

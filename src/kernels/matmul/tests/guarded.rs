//! Matrices and activations that end where memory ends: whoever reads or writes on is stopped by the system.
